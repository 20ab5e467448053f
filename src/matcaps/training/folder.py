"""A run's folder: claimed by one training, and held while it is at it."""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from matcaps._paths import user_path
from matcaps.training.record import SETTINGS_NAME, read_run_settings, write_settings
from matcaps.training.settings import TrainSettings

FOLDER_VARIABLE = "MATCAPS_RUN_FOLDER"
_LOCK_NAME = ".run.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunBusyError(OSError):
    """Another process is at a run's folder."""


@contextmanager
def held(lock: Path, folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, if they ask; a lock ends with its process, however that ends.

    Where the file system has no locks, as some of clusters have none, it warns and holds nothing.

    Args:
        lock: the file to lock, which stays; its folder must exist.
        folder: what is held, for the message.

    Raises:
        RunBusyError: another process holds it.
    """
    lock_file = FileLock(lock)
    try:
        lock_file.acquire(timeout=0)
    except Timeout:
        raise RunBusyError(
            f"another process is at {folder}: let it end, or stop it, before this one goes on with that run"
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"the file system of {folder} has no locks ({error}): nothing keeps a second process out of it",
            stacklevel=2,
        )
    try:
        yield
    finally:
        lock_file.release()


@contextmanager
def claimed_folder(
    settings: TrainSettings, folder: str | os.PathLike[str] | None, *, resume: bool, rank: int
) -> Iterator[Path]:
    """The run's folder, made ready and held by the first process, and named to those that it starts.

    Args:
        settings: written there for a new run; those of the run there, if it is resumed.
        folder: where; None: a new ``runs/RECIPE-DATE-TIME``.
        resume: whether the folder must hold a run or nothing.
        rank: this process's among several.

    Raises:
        FileExistsError: the folder has something in it, and ``resume`` is false.
        FileNotFoundError: ``resume`` is true, and there is no run.
        RunBusyError: another process is at that run.
        ValueError: the run there has other settings, or no folder is named where one must be.
    """
    folder = _named(settings, folder, resume, rank)
    if rank != 0:
        yield folder
        return
    if resume and not (folder / SETTINGS_NAME).is_file():
        raise FileNotFoundError(f"no run to resume in {folder}: it has no {SETTINGS_NAME}")
    if not resume:
        _check_empty(folder)
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder / _LOCK_NAME, folder), _environment(folder):
        if resume:
            if read_run_settings(folder).with_incidentals_of(settings) != settings:
                raise ValueError(
                    f"settings must be those of the run that is resumed, in {folder / SETTINGS_NAME}; got others"
                )
        else:
            _check_empty(folder)  # again: another process may have claimed it meanwhile, and be gone
            write_settings(folder / SETTINGS_NAME, settings.to_dict())
        yield folder


def _named(settings: TrainSettings, folder: str | os.PathLike[str] | None, resume: bool, rank: int) -> Path:
    if folder is None:
        if resume:
            raise ValueError("folder must be given to resume a run")
        folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        if rank == 0 and "TORCHELASTIC_RUN_ID" in os.environ:
            raise ValueError("with torchrun say where the run goes, so that all processes agree: --output FOLDER")
        wanted = Path("runs") / f"{settings.recipe}-{datetime.now():%Y%m%d-%H%M%S}"
        folder = _new_folder(wanted) if rank == 0 else wanted
    return user_path(folder)


def _new_folder(wanted: Path) -> Path:
    """Make a folder of that name, or of the name with a number behind it, which no other process has."""
    for name in [wanted, *(wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 1000))]:
        try:
            name.mkdir(parents=True)
        except FileExistsError:
            continue
        return name
    raise FileExistsError(f"{wanted} and a thousand more are there already: say where the run goes, --output FOLDER")


def _check_empty(folder: Path) -> None:
    """Refuse a folder with more in it than the lock and files whose writing was cut off."""
    if folder.exists() and (
        not folder.is_dir()
        or any(path.name != _LOCK_NAME and not path.name.endswith(".partial") for path in folder.iterdir())
    ):
        raise FileExistsError(
            f"{folder} is there already and not empty: choose another folder, or go on with that run by "
            f"matcaps train --resume {folder}"
        )


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Tell the processes that Lightning starts where the run goes."""
    before = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[FOLDER_VARIABLE]
        else:
            os.environ[FOLDER_VARIABLE] = before
