"""A run's folder: claimed by one training, and locked while it runs."""

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
from matcaps.training.settings import TrainSettings, changes_of_a_run

FOLDER_VARIABLE = "MATCAPS_RUN_FOLDER"
_LOCK_NAME = ".run.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunBusyError(OSError):
    """Another process is using a run's folder."""


@contextmanager
def held(lock: Path, folder: Path) -> Iterator[None]:
    """Lock a folder against other processes that use this lock; the lock ends with its process, however that ends.

    If the file system has no locks, as on some clusters, this warns and locks nothing.

    Args:
        lock: the file to lock, which is not removed; its folder must exist.
        folder: the folder that is locked, for the message.

    Raises:
        RunBusyError: another process holds it.
    """
    lock_file = FileLock(lock)
    try:
        lock_file.acquire(timeout=0)
    except Timeout:
        raise RunBusyError(
            f"another process is using {folder}: let it end, or stop it, before continuing that run"
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"the file system of {folder} has no locks ({error}): nothing prevents a second process from using it",
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
    """The run's folder, prepared and locked by the first process, which passes its name to the processes it starts.

    Args:
        settings: written to the folder for a new run; for a resumed run they must match those in the folder.
        folder: the folder; None: a new ``runs/RECIPE-DATE-TIME``.
        resume: whether the folder must contain a run; otherwise it must be empty.
        rank: this process's rank.

    Raises:
        FileExistsError: the folder is not empty, and ``resume`` is false.
        FileNotFoundError: ``resume`` is true, and there is no run.
        RunBusyError: another process is using that run.
        ValueError: the run has other settings, or a folder must be named.
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
            changed = changes_of_a_run(read_run_settings(folder).to_dict(), settings.to_dict())
            changed = [line for line in changed if not line.startswith("epochs: ")]
            if changed:
                raise ValueError(
                    f"settings must be those of the resumed run, in {folder / SETTINGS_NAME}, except epochs "
                    f"and settings that change no number; got others ({'; '.join(changed)})"
                )
        else:
            _check_empty(folder)  # again: another process may have used it in the meantime
            write_settings(folder / SETTINGS_NAME, settings.to_dict())
        yield folder


def _named(settings: TrainSettings, folder: str | os.PathLike[str] | None, resume: bool, rank: int) -> Path:
    if folder is None:
        if resume:
            raise ValueError("folder must be given to resume a run")
        folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        if rank == 0 and "TORCHELASTIC_RUN_ID" in os.environ:
            raise ValueError(
                "with torchrun the run's folder must be named, so that all processes agree: --output FOLDER"
            )
        wanted = Path("runs") / f"{settings.recipe}-{datetime.now():%Y%m%d-%H%M%S}"
        folder = _new_folder(wanted) if rank == 0 else wanted
    return user_path(folder)


def _new_folder(wanted: Path) -> Path:
    """Create a folder of that name, or of that name with a number added, that no other process uses."""
    for name in [wanted, *(wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 1000))]:
        try:
            name.mkdir(parents=True)
        except FileExistsError:
            continue
        return name
    raise FileExistsError(f"{wanted} and a thousand more already exist: name the run's folder, --output FOLDER")


def _check_empty(folder: Path) -> None:
    """Refuse a folder that contains more than the lock and partial files."""
    if folder.exists() and (
        not folder.is_dir()
        or any(path.name != _LOCK_NAME and not path.name.endswith(".partial") for path in folder.iterdir())
    ):
        raise FileExistsError(
            f"{folder} already exists and is not empty: choose another folder, or continue that run with "
            f"matcaps train --resume {folder}"
        )


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Pass the run's folder to the processes that Lightning starts."""
    before = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[FOLDER_VARIABLE]
        else:
            os.environ[FOLDER_VARIABLE] = before
