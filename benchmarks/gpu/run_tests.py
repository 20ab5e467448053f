"""Runs tests within so many seconds and says what they came to, even if they were cut short.

``python -m benchmarks.gpu.run_tests --seconds 150 --workers 8 --record FILE [TEST...]``, by default those that need a
GPU or hold the CUDA kernels to values and laws (on a GPU where there is one). Exit status 0 if none failed and all
ran, 1 if one failed, 124 if the time was not enough.
"""

import argparse
import importlib.util
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only

from benchmarks.gpu.measure import update_record
from benchmarks.measure import ROOT

DEFAULT = (
    "tests/**/test_on_gpu.py",
    "tests/routing/test_cuda_values.py",
    "tests/routing/test_cuda_torch.py",
    "tests/routing/test_cuda_boundary.py",
    "tests/routing/test_laws.py",
)
CHOICE = "cuda or gpu"
"""Of the default tests, by name or file."""

OUTCOMES = ("PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL", "XPASS")


def outcome_in(line: str) -> tuple[str, str] | None:
    """Outcome and test that a line of ``pytest -v`` tells of, with pytest-xdist or without."""
    if beside := re.match(r"\[gw\d+\] \[\s*\d+%\] (\w+) (\S.*)$", line):
        return (beside[1], beside[2].strip()) if beside[1] in OUTCOMES else None
    if alone := re.match(r"(\S+\.py::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", line):
        return alone[2], alone[1]
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tests", nargs="*", help="files; default: see above")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--record", type=Path, help="of benchmarks.gpu.bench; gets the outcomes")
    options = parser.parse_args(arguments)
    beside = ["-n", str(options.workers)] if importlib.util.find_spec("xdist") and options.workers > 1 else []
    tests, choice = options.tests, []
    if not tests:
        tests = sorted({str(path.relative_to(ROOT)) for pattern in DEFAULT for path in ROOT.glob(pattern)})
        choice = ["-k", CHOICE]
    command = [
        sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--tb=short", "--color=no", "--durations=10",
        "-rfE", *beside, *choice, *tests,
    ]  # fmt: skip
    start = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        is_cut = threading.Event()

        def end(with_signal: int) -> None:
            is_cut.set()
            process.send_signal(with_signal)  # workers end with pytest, which they speak to

        timers = [
            threading.Timer(max(1.0, options.seconds - grace), end, [what])
            for grace, what in ((8, signal.SIGINT), (1, signal.SIGKILL))
        ]
        for timer in timers:
            timer.daemon = True
            timer.start()
        outcomes: Counter[str] = Counter()
        failed: list[str] = []
        is_listing = True
        assert process.stdout is not None
        for line in process.stdout:
            found = outcome_in(line)
            if found is None:
                is_listing = is_listing and "= FAILURES =" not in line and "= ERRORS =" not in line
                if line.strip() and (not is_listing or line.startswith(("E ", "ERROR", "="))):
                    print(line, end="", flush=True)
                continue
            outcome, test = found
            outcomes[outcome] += 1
            if outcome in ("FAILED", "ERROR"):
                failed.append(test)
                print(f"{outcome} {test}", flush=True)
            elif sum(outcomes.values()) % 100 == 0:
                print(f"{sum(outcomes.values())} tests, {time.monotonic() - start:.0f} s", flush=True)
        status = process.wait()
        for timer in timers:
            timer.cancel()
    seconds, was_cut = time.monotonic() - start, is_cut.is_set() and status != 0
    summary = ", ".join(f"{count} {name.lower()}" for name, count in outcomes.items()) or "no outcome"
    print(f"{summary} in {seconds:.0f} s{', cut short' if was_cut else ''}", flush=True)
    if options.record:
        counts = {name.lower(): count for name, count in outcomes.items()}
        found = {**counts, "failures": failed, "seconds": seconds, "cut_short": was_cut, "files": tests}
        update_record(options.record, tests=found)
    if failed or (status != 0 and not was_cut):
        return 1
    return 124 if was_cut else 0


if __name__ == "__main__":
    sys.exit(main())
