"""Compiles every Triton kernel ahead of time, with no GPU: ``python -m benchmarks.kernels``.

Shows, for the layers of ``paper`` and ``paper-small``, what the assembler says of each kernel: registers a thread,
bytes of spilled registers, shared memory, and how many instructions of which kind the machine code holds. That a
kernel compiles for a GPU does not say that it is right or fast on one: only that it compiles.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it finds its own folder only

LAYERS: dict[str, dict[str, Any]] = {
    "paper ConvCaps1": {"children": 32, "parents": 32, "size": 14, "kernel": 3, "stride": 2},
    "paper-small ConvCaps1": {"children": 8, "parents": 16, "size": 14, "kernel": 3, "stride": 2},
    "paper-small ConvCaps2": {"children": 16, "parents": 16, "size": 6, "kernel": 3, "stride": 1},
    "paper-small ClassCaps": {"children": 16, "parents": 5, "size": 4, "kernel": None, "stride": 1},
    "awkward": {"children": 7, "parents": 33, "size": 7, "kernel": 2, "stride": 1},
    "one of each": {"children": 1, "parents": 1, "size": 1, "kernel": 1, "stride": 1},
}


def launches(
    children: int, parents: int, size: int, kernel: int | None, stride: int, batch: int = 128, iterations: int = 3,
    competition: str = "child", standardised: bool = False,
) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:  # fmt: skip
    """What a forward and a backward pass start: kernel, arguments, constants; each different one once."""
    from matcaps.routing import triton as door
    from matcaps.routing.triton_kernels import launch

    poses = torch.empty(batch, size, size, children, 4, 4, device="meta")
    weight = poses.new_empty([*([] if kernel is None else [kernel, kernel]), children, parents, 4, 4])
    inputs = [poses, poses.new_empty(poses.shape[:4]), weight, *(poses.new_empty(parents) for _ in range(2))]
    inputs.append(poses.new_empty(iterations))
    coordinates = poses.new_empty(size, size, 16) if kernel is None else None
    is_child = competition == "child"
    plan = launch.plan_for(poses, weight, inputs[-1], stride, is_child, coordinates is not None)
    results = door._empty_results(poses, weight, inputs[-1], stride, is_child, True, True)
    found: dict[Any, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}

    def record(kernel: Any, grid: Any, *arguments: Any, **constants: Any) -> None:
        constants["grid"] = grid
        found.setdefault((kernel.__name__, *sorted(constants.items(), key=str)), (kernel, arguments, constants))

    launch.forward(plan, inputs, coordinates, int(standardised), 5e-4, 1.0, results, record)
    launch.backward(plan, inputs, coordinates, int(standardised), 5e-4, 1.0, results[2:], results[:2], record)
    return list(found.values())


def compile_kernel(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any], capability: int) -> Any:
    """Compile just as a launch would, for an NVIDIA GPU of this capability, such as 90."""
    pretend(capability)
    kernel.device_caches.clear()  # they remember the GPU
    constants = {name: value for name, value in constants.items() if name != "grid"}
    return kernel.warmup(*arguments, grid=(1,), **constants)


def pretend(capability: int) -> None:
    """Let Triton compile for a GPU of this capability where there is none."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class Absent:
        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", capability, 32)

    driver.set_active(Absent())  # type: ignore[arg-type]


def describe(compiled: Any) -> dict[str, Any]:
    """Registers, spills and instructions, from the tools that come with Triton."""
    import triton.backends.nvidia

    tools = Path(triton.backends.nvidia.__file__).parent / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        used = subprocess.run([tools / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True).stdout
        code = subprocess.run([tools / "nvdisasm", "-c", file.name], capture_output=True, text=True).stdout
    words = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9]+)", code, re.MULTILINE)
    counts = collections.Counter(words)
    usage = dict(re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", used))
    return {
        "registers": int(usage.get("REG", -1)),
        "stack": int(usage.get("STACK", -1)),
        "shared": int(usage.get("SHARED", -1)),
        "spill_loads": counts["LDL"],
        "spill_stores": counts["STL"],
        "instructions": sum(counts.values()),
        "kinds": {
            "fp32": counts["FFMA"] + counts["FMUL"] + counts["FADD"],
            "loads": counts["LDG"],
            "shuffles": counts["SHFL"],
            "shared": counts["LDS"] + counts["STS"],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--capability", type=int, action="append", help="80, 90, ...; may be repeated; default 90")
    parser.add_argument("--layer", choices=LAYERS, action="append")
    parser.add_argument("--kernel", action="append", help="only kernels of this name")
    parser.add_argument("--competition", choices=("child", "window"), default="child")
    parser.add_argument("--standardised", action="store_true")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("unset TRITON_INTERPRET: interpreted kernels cannot be compiled")
    rows = []
    print(
        f"{'layer':23}{'kernel':20}{'sm':>4}{'grid':>14}{'regs':>6}{'spills':>8}{'shared':>8}{'code':>7}"
        "  fp32/loads/shuffles"
    )
    for capability in options.capability or [90]:
        for layer in options.layer or LAYERS:
            changes = {"competition": options.competition, "standardised": options.standardised}
            sizes = {"batch": options.batch, "iterations": options.iterations}
            for kernel, arguments, constants in launches(**LAYERS[layer], **changes, **sizes):
                if options.kernel and kernel.__name__ not in options.kernel:
                    continue
                row = describe(compile_kernel(kernel, arguments, constants, capability))
                flags = "".join(name[0] for name in ("FIRST", "LAST") if constants.get(name))
                row.update(layer=layer, kernel=f"{kernel.__name__} {flags}".strip(), capability=capability)
                kinds, spills = row["kinds"], row["spill_loads"] + row["spill_stores"]
                print(
                    f"{layer:23}{row['kernel']:20}{capability:>4}{constants['grid']!s:>14}{row['registers']:>6}"
                    f"{spills:>8}{row['shared']:>8}{row['instructions']:>7}  "
                    f"{kinds['fp32']}/{kinds['loads']}/{kinds['shuffles']}",
                    flush=True,
                )
                rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
