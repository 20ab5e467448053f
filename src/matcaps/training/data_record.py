"""The record of a run's data, stored in its folder, and compared whenever the data are read again."""

import warnings
from dataclasses import replace
from pathlib import Path

from matcaps.data import DataBundle, DataSettings, load_data
from matcaps.data.balance import describe_unevenness
from matcaps.data.fingerprint import Fingerprint, changes
from matcaps.data.shares import EmptyPartError
from matcaps.training.record import RESULTS_NAME, read_json, read_run_settings, write_json
from matcaps.training.settings import TrainSettings

DATA_NAME = "data.json"
"""The file with the fingerprint of a run's data, in its folder; runs of earlier versions have none."""

_EARLIER = "earlier"  # the key of the fingerprints before a change


def load_for_training(settings: TrainSettings, *, resume: bool, rank: int) -> tuple[TrainSettings, DataBundle]:
    """Read a run's data; if few images leave a part of a new run empty, choose another seed for the split.

    The seed is chosen once, before training, and stored in the run's settings, so that later images move no image.

    Args:
        settings: the run's.
        resume: whether the run was started earlier: then its split is kept.
        rank: this process's rank; only the first process warns.

    Returns:
        The run's settings, and its data.

    Raises:
        FileNotFoundError, ValueError: see :func:`matcaps.data.load_data`.
    """
    try:
        return settings, load_data(settings.data, settings.seed)
    except EmptyPartError as error:
        if resume or error.seed is None:
            raise
        if rank == 0:
            warnings.warn(
                f"{error.what}: this training uses --data.split.seed {error.seed}, with which each part has images of "
                "every class",
                stacklevel=2,
            )
        split = replace(settings.data.split, seed=error.seed)
        settings = replace(settings, data=replace(settings.data, split=split))
        return settings, load_data(settings.data, settings.seed)


def begin_with_data(folder: Path, bundle: DataBundle, *, resume: bool, rank: int) -> None:
    """Store the fingerprint of a new run's data; check that the data of a resumed run are the same.

    Other images are not refused: images are assigned to parts by content, so no training image is
    tested on, and hours of training would be lost. A warning names them, and the record stores both fingerprints. Other
    classes are refused, because the network has one output for each; so are other images if their positions
    decide the parts, because images would move between the parts.

    Args:
        folder: the run's folder.
        bundle: its data, just read.
        resume: whether the run was started earlier.
        rank: this process's rank; only the first process warns and writes.

    Raises:
        ValueError: the data have changed, and the run cannot continue with them.
    """
    if rank == 0 and bundle.settings.balance == "none":
        uneven = describe_unevenness(bundle.train)
        if uneven:
            warnings.warn(uneven, stacklevel=2)
    now = bundle.fingerprint
    if now is None:
        return
    before = read_fingerprint(folder) if resume else None
    what = changed_data(folder, bundle) if resume else ""
    if resume and before is None:
        recorded = read_run_settings(folder).data.with_whole_paths().folder
        if recorded != bundle.settings.folder:
            raise ValueError(
                f"the run in {folder} has no fingerprint of its data, so it cannot continue with another folder, "
                f"{bundle.settings.folder}: it was started with {recorded}"
            )
    if what:
        advice = "restore the original data, or start a new training"
        if before is not None and (before.name != now.name or before.classes != now.classes):
            raise ValueError(f"the run in {folder} cannot continue with other data: {what}: {advice}")
        if _positions_divide(bundle):
            raise ValueError(
                f"the run in {folder} cannot continue with other images ({what}), because {_divider(bundle)} decide "
                f"which ones are test images: {advice}"
            )
        if rank == 0:
            warnings.warn(
                f"the images are not those that the run in {folder} was started with ({what}): it continues with the "
                "present images, and will end with different results",
                stacklevel=2,
            )
    if rank == 0 and (before is None or what):
        earlier = read_json(folder / DATA_NAME) if before is not None else None
        earlier_records = [] if earlier is None else [*earlier.pop(_EARLIER, []), earlier]
        write_json(folder / DATA_NAME, {**now.to_dict(), **({_EARLIER: earlier_records} if earlier_records else {})})


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """The fingerprint of a run's data; None if the run keeps none.

    Raises:
        ValueError: the file is malformed.
    """
    path = folder / DATA_NAME
    if not path.is_file():
        return None
    try:
        return Fingerprint.from_dict(read_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def changed_data(folder: Path, bundle: DataBundle) -> str:
    """Describe how a run's data have changed since it was made; empty if they have not, or if this is unknown.

    A finished run of an earlier version has no fingerprint, but its numbers of training and test images.
    """
    before = read_fingerprint(folder)
    if before is not None:
        return "" if bundle.fingerprint is None else changes(before, bundle.fingerprint)
    if not _positions_divide(bundle) or not (folder / RESULTS_NAME).is_file():
        return ""
    results, settings = read_json(folder / RESULTS_NAME), read_run_settings(folder).data
    tested = results.get("test")
    then = {
        "train": results.get("num_train_images") if settings.max_train_images is None else None,
        "test": tested.get("num_images") if settings.max_test_images is None and isinstance(tested, dict) else None,
    }
    now = {"train": len(bundle.train), "test": len(bundle.test)}
    return "; ".join(
        f"{part}: {count:,} images then, {now[part]:,} now"
        for part, count in then.items()
        if isinstance(count, int) and count != now[part]
    )


def warn_of_changed_data(folder: Path, bundle: DataBundle) -> None:
    """Warn if a run's data have changed; refuse them if the run would be tested on its training images.

    Args:
        folder: the run's folder.
        bundle: its own present data, not limited in number.

    Raises:
        ValueError: the images have changed, and their positions decide which ones are test images.
    """
    changed = changed_data(folder, bundle)
    if not changed:
        return
    what = f"the images are not those of the run in {folder} ({changed})"
    if _positions_divide(bundle):
        raise ValueError(
            f"{what}, and {_divider(bundle)} decide which ones are test images, so many of these were trained on: "
            "restore the original images, or name a folder of other images with --folder"
        )
    warnings.warn(what, stacklevel=3)


def _positions_divide(bundle: DataBundle) -> bool:
    """Whether test images were taken from a folder's training images by positions or groups, not by their content."""
    data = bundle.settings
    drawn = data.name == "folder" and bundle.test.split == "train"
    return drawn and (data.split.choose_by == "position" or data.split.rule == "group")


def _divider(bundle: DataBundle) -> str:
    return "their groups" if bundle.settings.split.rule == "group" else "their positions"


def check_folder_exists(data: DataSettings, run: Path, advice: str) -> None:
    """Refuse to continue without a run's folder of images; the error explains why it may be missing.

    Args:
        data: the run's own data settings.
        run: the run's folder.
        advice: what to do about it.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if data.folder is None:
        return
    place = Path(str(data.with_whole_paths().folder))
    if place.exists():
        return
    why = f"there is no folder {place}"
    if not data.folder.startswith("~") and not Path(data.folder).is_absolute():
        why = f"the path is relative to the folder in which the training was started, and here {why}"
    raise FileNotFoundError(f"the run in {run} was trained on the folder {data.folder}; {why}: {advice}")
