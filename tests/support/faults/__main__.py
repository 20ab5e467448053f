"""``make test-faults``: every call of every command fails once with each fault, on its own and from then on."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.faults.scenarios import SCENARIOS
from tests.support.faults.server import Server
from tests.support.faults.shim import FAULTS, OPEN, READ
from tests.support.faults.sweep import Sweep


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(SCENARIOS), help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--every", type=int, default=1, help="only every n-th call")
    parsed = parser.parse_args()
    wrong = 0
    with Server() as server, tempfile.TemporaryDirectory() as base:
        for name in parsed.only:
            scenario = SCENARIOS[name]
            for fault in parsed.faults:
                if scenario.reads_alone and not FAULTS[fault].calls & (OPEN | READ):
                    continue
                began = time.monotonic()
                sweep = Sweep(server, scenario, fault, Path(base) / name / fault.replace(" ", "-"))
                numbers = range(1, len(sweep.calls) + 1, parsed.every)
                found = sweep.run(numbers, lambda line: print("  ", line, flush=True))
                wrong += len(found)
                print(
                    f"{name}, {fault}: {len(numbers)} of {len(sweep.calls)} calls, {sweep.resumed} states continued, "
                    f"{len(found)} wrong, {time.monotonic() - began:.0f} s",
                    flush=True,
                )
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
