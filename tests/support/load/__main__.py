"""``make test-load``: see the parts."""

import argparse
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of each part")
    parser.add_argument("--only", choices=("training", "demo"), help="one part alone")
    parser.add_argument("--sessions", type=int, default=50, help="visitors of the demo at a time")
    parsed = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        if parsed.only != "demo":
            from tests.support.load.training import train_for

            wrong += train_for(parsed.minutes, Path(folder))
        if parsed.only != "training":
            from tests.support.load.visitors import visit_for

            wrong += visit_for(parsed.minutes, parsed.sessions, Path(folder))
    print(*wrong or ["nothing was wrong"], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
