"""Fuzz every reader: ``python -m tests.support.fuzz [--seconds 10] [--tries 0] [--folder build/fuzz] [READER ...]``."""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.support.fuzz.planted import PLANTED

# What a file may take is measured by tests.support.fuzz.one, file by file. These end what does not come back at all; on
# a busy machine a process may not be run for half a minute.
MOST_MEGABYTES = 4096
MOST_SECONDS = 300


def main() -> int:
    """Run each reader in a process of its own; 1 if any did what none may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=5, help="for each reader")
    parser.add_argument("--tries", type=int, default=0, help="for each reader, whatever time they take; 0: by seconds")
    parser.add_argument("--megabytes", type=int, default=1024, help="that reading one file may take; default 1024")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="where what was found is kept")
    chosen = parser.parse_args()
    known: list[str] = []
    if not chosen.readers or not set(chosen.readers) <= PLANTED.keys():
        from tests.support.fuzz.readers import readers  # which imports all that is tried

        with tempfile.TemporaryDirectory() as folder:
            known = list(readers(Path(folder)))
    unknown = [name for name in chosen.readers if name not in known and name not in PLANTED]
    if unknown:
        parser.error(f"there is no reader {unknown[0]!r}; the readers are {', '.join(known)}")
    failed = []
    for name in chosen.readers or known:
        own = chosen.folder / name
        own.mkdir(parents=True, exist_ok=True)
        enough = [f"-runs={chosen.tries}"] if chosen.tries else [f"-max_total_time={chosen.seconds}"]
        limits = [f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}", "-max_len=200000", "-seed=1"]
        started = time.perf_counter()
        command = [sys.executable, "-m", "tests.support.fuzz.one", name, str(own.resolve()), str(chosen.megabytes)]
        done = subprocess.run([*command, *enough, *limits], capture_output=True, text=True, errors="replace")
        tries, accepted = np.fromfile(own / "counts", np.int64) if (own / "counts").is_file() else (0, 0)
        verdict = "ok" if done.returncode == 0 else "FAILED"
        peaks = [int(peak) for peak in re.findall(r"rss: (\d+)Mb", done.stderr)]
        print(
            f"{name:<12} {verdict:<7} {tries:>9,} tries, {accepted:>8,} read  {time.perf_counter() - started:6.1f} s  "
            f"{max(peaks, default=0):>5} MB",
            flush=True,
        )
        if done.returncode != 0:
            failed.append(name)
            print(done.stdout[-2000:], done.stderr[-1500:], flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}; the files are in {chosen.folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
