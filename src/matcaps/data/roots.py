"""The folder of the data sets."""

import os
from pathlib import Path

import platformdirs

from matcaps._paths import user_path

ENVIRONMENT_VARIABLE = "MATCAPS_DATA"


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the data sets, each in a folder of its own (``ROOT/mnist``, ``ROOT/smallnorb``).

    The first of these that is given: the argument, the environment variable ``MATCAPS_DATA``, ``data`` in the user's
    cache folder for matcaps. The folder need not exist.

    Args:
        root: a path; ``~`` is the home folder. None or empty: not given.

    Returns:
        An absolute path.

    Raises:
        ValueError: it begins with ``~`` and the name of no user.
    """
    chosen = root or os.environ.get(ENVIRONMENT_VARIABLE)
    path = Path(chosen) if chosen else Path(platformdirs.user_cache_dir("matcaps")) / "data"
    return user_path(path).absolute()
