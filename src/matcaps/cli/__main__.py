"""``python -m matcaps.cli``."""

import sys

from matcaps.cli import main

if __name__ == "__main__":
    sys.exit(main())
