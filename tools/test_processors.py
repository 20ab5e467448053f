"""Runs the tests as several processors would: torch, oneDNN, MKL and our own core held to older instruction sets.

What a processor lacks is left out and said. Prints a table in Markdown; exit status 1 if a row failed.

    python tools/test_processors.py [--only NAME ...] [-- PYTEST ARGUMENTS]
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One way to run the tests.

    Attributes:
        name: in the table.
        needs: the instruction set that the processor must have, as /proc/cpuinfo calls it; empty for none.
        environment: the variables that hold the libraries back.
    """

    name: str
    needs: str
    environment: dict[str, str]


def _generation(aten: str, onednn: str, mkl: str, core: str) -> dict[str, str]:
    return {
        "ATEN_CPU_CAPABILITY": aten,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "MATCAPS_NATIVE_TARGET": core,
    }


_SSE = _generation("default", "SSE41", "SSE4_2", "baseline")
_AVX2 = _generation("avx2", "AVX2", "AVX2", "avx2")
_AVX512 = _generation("avx512", "AVX512_CORE", "AVX512", "avx512")
_TWO = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}

ROWS = (
    Row("as it is", "", {}),
    Row("as it is, 2 threads", "", _TWO),
    Row("SSE 4", "", _SSE),
    Row("SSE 4, 2 threads", "", {**_SSE, **_TWO}),
    Row("AVX2", "avx2", _AVX2),
    Row("AVX2, 2 threads", "avx2", {**_AVX2, **_TWO}),
    Row("AVX-512", "avx512f", _AVX512),
    Row("AVX-512, 2 threads", "avx512f", {**_AVX512, **_TWO}),
    # libraries and core of unlike generations, and MKL's mode for the same bits everywhere
    Row("torch AVX2, core baseline", "avx2", {**_AVX2, "MATCAPS_NATIVE_TARGET": "baseline"}),
    Row("torch SSE 4, core AVX-512", "avx512f", {**_SSE, "MATCAPS_NATIVE_TARGET": "avx512"}),
    Row("MKL_CBWR=COMPATIBLE", "", {"MKL_CBWR": "COMPATIBLE"}),
)


def main() -> int:
    """Run the rows and print the table."""
    parser = argparse.ArgumentParser(description="Run the tests as several processors would.")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], help="rows to run; all unless given")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --; all tests, on two processes, if none")
    asked = parser.parse_args()
    flags = _processor_flags()
    lines, failed = [], False
    for row in ROWS:
        if asked.only and row.name not in asked.only:
            continue
        if row.needs and row.needs not in flags:
            lines.append(f"| {row.name} | this processor lacks {row.needs} | |")
            continue
        started = time.monotonic()
        status, said = _run(row, asked.pytest)
        failed |= status != 0
        lines.append(f"| {row.name} | {said} | {time.monotonic() - started:.0f} s |")
        print(lines[-1], flush=True)
    print(f"\n{_processor_name()}\n\n| processor | tests | time |\n| --- | --- | --- |")
    print("\n".join(lines))
    return int(failed)


def _run(row: Row, arguments: list[str]) -> tuple[int, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **row.environment}
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", *(arguments or ["-n", "2"])]
    outcome = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if outcome.returncode != 0:
        print(outcome.stdout[-6000:], outcome.stderr[-2000:], sep="\n")
    counts = re.findall(r"\d+ (?:passed|failed|error|errors|skipped|xfailed)\b", outcome.stdout.strip().split("\n")[-1])
    return outcome.returncode, ", ".join(counts) or f"exit status {outcome.returncode}"


def _processor_flags() -> set[str]:
    return {flag for line in _cpuinfo() if line.startswith("flags") for flag in line.split(":", 1)[1].split()}


def _processor_name() -> str:
    wanted = ("model name", "cpu family", "model\t")
    fields = {
        line.split(":", 1)[0].strip(): line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith(wanted)
    }
    return ", ".join(f"{name} {value}" for name, value in fields.items()) or "unknown processor"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
