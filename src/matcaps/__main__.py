"""``python -m matcaps``, as launchers start it."""

import sys

from matcaps.cli import main

if __name__ == "__main__":
    sys.exit(main())
