"""``python -m benchmarks.counts``, as the operator's README calls ``benchmarks/gpu/counts.py``."""

from benchmarks.gpu.counts import main

if __name__ == "__main__":
    main()
