"""Compiles the CUDA kernels without a GPU: ``python -m benchmarks.gpu.kernels``.

Shows, for the routed layers of ``paper`` and ``paper-small``, what NVRTC's assembler says of each kernel: registers a
thread, bytes that are spilled, shared memory of a block, how many blocks and warps a processor holds of it, and bytes
of machine code. Where there is NVIDIA's ``nvdisasm`` (on PATH, or named by ``--nvdisasm``), also the instructions of
its inner loops for each vote. That a kernel compiles for a GPU does not say that it is right or fast on one.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only

from benchmarks.gpu.layers import LAYERS, Launched, RoutedLayer, kernels_of
from matcaps.routing import cuda_launch
from matcaps.routing.cuda_launch import Cut

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")

_SHARED = {"sm_80": (164, 163), "sm_86": (100, 99), "sm_89": (100, 99), "sm_120": (100, 99)}
_USUAL_SHARED = (228, 227)
_WARPS = {"sm_86": 48, "sm_89": 48, "sm_120": 48}
"""Shared memory in KB of a processor and of a block, and warps of a processor, where they are not those of sm_90: 228,
227 and 64. From NVIDIA's table of compute capabilities."""


def shared_limit(architecture: str) -> int:
    """Bytes of shared memory that a block can have."""
    return _SHARED.get(architecture, _USUAL_SHARED)[1] * 1024


class Resources(NamedTuple):
    """What a kernel takes, as the assembler says it."""

    registers: int
    spilled: int
    """Bytes that a thread writes to and reads from memory for want of registers."""
    static_shared: int


def resources_in(said: str) -> dict[str, Resources]:
    """By kernel, from what NVRTC says with ``--ptxas-options=-v``."""
    found = {}
    for part in said.split("Compiling entry function '")[1:]:
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        if spills is None or registers is None:
            raise ValueError(f"NVRTC's words on a kernel are not understood: {part[:300]!r}")
        shared = re.search(r"(\d+) bytes smem", part)
        spilled = int(spills[1]) + int(spills[2])
        found[part[: part.index("'")]] = Resources(int(registers[1]), spilled, int(shared[1]) if shared else 0)
    return found


def resident_blocks(threads: int, registers: int, shared: int, architecture: str = "sm_90") -> int:
    """Blocks that a processor holds: registers go by 256 a warp, and each block takes 1 KB of shared memory more."""
    warps = -(-threads // 32)
    by_registers = 65536 // (-(-registers * 32 // 256) * 256 * warps)
    by_shared = _SHARED.get(architecture, _USUAL_SHARED)[0] * 1024 // (shared + 1024)
    return min(by_registers, by_shared, _WARPS.get(architecture, 64) // warps, 32)


class Loop(NamedTuple):
    """An innermost loop of machine code that makes votes."""

    instructions: int
    multiply_adds: int
    shared_loads: int
    local: int
    """Loads and stores of spilled registers."""


def loops_in(text: str) -> dict[str, list[Loop]]:
    """By kernel, the innermost loops with a vote's 64 multiply-adds or more, from nvdisasm's text."""
    found: dict[str, list[Loop]] = {}
    for part in re.split(r"^\s*\.section\s+\.text\.", text, flags=re.MULTILINE)[1:]:
        kernel = re.match(r"\w+", part)
        if kernel is None:
            continue
        labels: dict[str, int] = {}
        words: list[str] = []
        jumps: list[tuple[int, int]] = []  # from the label that is jumped back to, to the jump
        for line in part.splitlines():
            if label := re.match(r"\s*(\.L_\w+):", line):
                labels[label[1]] = len(words)
            elif code := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9]+)(.*)", line):
                target = re.search(r"`\((\.L_\w+)\)", code[2])
                if code[1] == "BRA" and target and target[1] in labels and labels[target[1]] < len(words):
                    jumps.append((labels[target[1]], len(words) + 1))
                words.append(code[1])
        inner = [one for one in jumps if not any(holds(one, other) for other in jumps)]
        loops = [words[start:stop] for start, stop in inner]
        found[kernel[0]] = [
            Loop(
                len(loop),
                loop.count("FFMA") + 2 * loop.count("FFMA2"),
                loop.count("LDS"),
                loop.count("LDL") + loop.count("STL"),
            )
            for loop in loops
            if loop.count("FFMA") + 2 * loop.count("FFMA2") >= 64
        ]
    return found


def holds(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a loop holds another."""
    return one != other and one[0] <= other[0] and other[1] <= one[1]


def votes_of_loop(kernel: str, cut: Cut) -> int:
    """Votes that a thread makes in one turn of an inner loop."""
    return cut.sweep_each if kernel == "sweep" else cut.unroll * cut.together


def compile_layer(layer: RoutedLayer, architecture: str, nvdisasm: str | None) -> list[dict[str, Any]]:
    """A row for each kernel that a step of this layer launches."""
    from matcaps.routing.cuda_program import compile_source, source

    limit = shared_limit(architecture)
    plan = layer.plan(limit)
    text = cuda_launch.constants(plan.shape, plan.cut) + source()
    code, said = compile_source(text, architecture, "--ptxas-options=-v")
    resources = resources_in(said)
    loops = loops_in(disassemble(code, nvdisasm)) if nvdisasm else {}
    rows = []
    for one in kernels_of(layer, limit):
        row = {"layer": layer.name, "architecture": architecture, "code_bytes": len(code)}
        row |= describe(one, resources[one.kernel], architecture)
        row |= {"votes": votes_of_loop(one.kernel, plan.cut), "loops": [x._asdict() for x in loops.get(one.kernel, [])]}
        rows.append(row)
    return rows


def describe(one: Launched, resources: Resources, architecture: str) -> dict[str, Any]:
    """What a block takes, and how many a processor holds."""
    shared = one.shared + resources.static_shared
    blocks = resident_blocks(one.threads, resources.registers, shared, architecture)
    return {
        "kernel": one.kernel,
        "grid": one.grid,
        "threads": one.threads,
        "registers": resources.registers,
        "spilled": resources.spilled,
        "shared": shared,
        "blocks": blocks,
        "warps": blocks * -(-one.threads // 32),
    }


def disassemble(code: bytes, nvdisasm: str) -> str:
    """Machine code as text."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        done = subprocess.run([nvdisasm, "-c", file.name], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{nvdisasm} failed: {done.stderr[:500]}")
    return done.stdout


def show(row: dict[str, Any]) -> str:
    """A row as a line."""
    loops = ", ".join(f"{loop['instructions'] / row['votes']:.0f}" for loop in row["loops"])
    return (
        f"{row['layer']:23}{row['kernel']:19}{row['architecture']:>7}{row['registers']:6}{row['spilled']:8}"
        f"{row['shared']:9}{row['blocks']:8}{row['warps']:7}{row['code_bytes']:9}  {loops}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--architecture", action="append", help="such as sm_90; may be repeated")
    parser.add_argument("--layer", choices=LAYERS, action="append")
    parser.add_argument("--nvdisasm", help="NVIDIA's disassembler; default: that on PATH, or none")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    options = parser.parse_args()
    nvdisasm = options.nvdisasm or shutil.which("nvdisasm")
    if not nvdisasm:
        print("no nvdisasm: instructions are not counted")
    print(
        f"{'layer':23}{'kernel':19}{'':>7}{'regs':>6}{'spilled':>8}{'shared':>9}{'blocks':>8}{'warps':>7}{'code':>9}"
        "  instructions a vote, by loop"
    )
    rows: list[dict[str, Any]] = []
    for architecture in options.architecture or ARCHITECTURES:
        for name in options.layer or LAYERS:
            for row in compile_layer(LAYERS[name], architecture, nvdisasm):
                print(show(row), flush=True)
                rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
