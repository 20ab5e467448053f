"""What data a run was made with, kept in its folder, and compared whenever they are read again."""

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
"""The fingerprint of a run's data, in its folder; a run of an earlier version has none."""

_EARLIER = "earlier"  # the key under which it keeps those from before a change


def load_for_training(settings: TrainSettings, *, resume: bool, rank: int) -> tuple[TrainSettings, DataBundle]:
    """Read a run's data; where few images leave a part of a new run empty, with a split's seed that does not.

    Chosen once, before anything is trained, and kept in the run's settings, so that images that come later move none.

    Args:
        settings: the run's.
        resume: whether the run was begun before: then its division stands.
        rank: this process's among several; the first one speaks.

    Returns:
        The settings that the run has, and its data.

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
                f"{error.what}: this training takes --data.split.seed {error.seed}, with which each part has images of "
                "every class",
                stacklevel=2,
            )
        split = replace(settings.data.split, seed=error.seed)
        settings = replace(settings, data=replace(settings.data, split=split))
        return settings, load_data(settings.data, settings.seed)


def begin_with_data(folder: Path, bundle: DataBundle, *, resume: bool, rank: int) -> None:
    """Keep the fingerprint of a new run's data; see that those of a resumed run are still the same.

    Other images are no reason to refuse: images are given their parts by content, so none that was trained on is
    tested on, and hours of training would be lost. They are warned of, and the record keeps both fingerprints. Other
    classes are refused, for the network has one output for each; and so are other images where their positions
    decide, for these move between the parts.

    Args:
        folder: the run's.
        bundle: its data, as just read.
        resume: whether the run was begun before.
        rank: this process's among several; the first one speaks and writes.

    Raises:
        ValueError: the data have become others, and the run cannot go on with them.
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
                f"the run in {folder} keeps no fingerprint of its data, so that it cannot go on with another folder, "
                f"{bundle.settings.folder}: it was begun with {recorded}"
            )
    if what:
        mend = "bring them back as they were, or start a new training"
        if before is not None and (before.name != now.name or before.classes != now.classes):
            raise ValueError(f"the run in {folder} cannot go on with other data: {what}: {mend}")
        if _positions_divide(bundle):
            raise ValueError(
                f"the run in {folder} cannot go on with other images ({what}), for {_divider(bundle)} say which "
                f"ones test: {mend}"
            )
        if rank == 0:
            warnings.warn(
                f"the images are not those that the run in {folder} was started with ({what}): it goes on with those "
                "of now, and ends otherwise than it would have",
                stacklevel=2,
            )
    if rank == 0 and (before is None or what):
        earlier = read_json(folder / DATA_NAME) if before is not None else None
        kept = [] if earlier is None else [*earlier.pop(_EARLIER, []), earlier]
        write_json(folder / DATA_NAME, {**now.to_dict(), **({_EARLIER: kept} if kept else {})})


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
    """What has become different in a run's data since it was made, in words; empty if nothing has, or none knows.

    A finished run of an earlier version has no fingerprint, but figures of how many images it trained and tested on.
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
    """Warn if a run's data have become others; refuse where it would then be tested on what it was trained on.

    Args:
        folder: the run's.
        bundle: its own data, as they are now, not limited in number.

    Raises:
        ValueError: other images, and their positions decide which ones test.
    """
    changed = changed_data(folder, bundle)
    if not changed:
        return
    what = f"the images are not those that the run in {folder} was made with ({changed})"
    if _positions_divide(bundle):
        raise ValueError(
            f"{what}, and {_divider(bundle)} say which ones test, so that many of these were trained on: "
            "bring them back as they were, or name a folder of other images with --folder"
        )
    warnings.warn(what, stacklevel=3)


def _positions_divide(bundle: DataBundle) -> bool:
    """Whether test images were taken from a folder's training images by positions or groups, not by their content."""
    data = bundle.settings
    drawn = data.name == "folder" and bundle.test.split == "train"
    return drawn and (data.split.choose_by == "position" or data.split.rule == "group")


def _divider(bundle: DataBundle) -> str:
    return "their groups" if bundle.settings.split.rule == "group" else "their positions"


def check_folder_is_there(data: DataSettings, run: Path, mend: str) -> None:
    """Refuse to go on without a run's folder of images, and say why it may not be found.

    Args:
        data: the run's own.
        run: its folder.
        mend: what to do about it.

    Raises:
        FileNotFoundError: it is not there.
    """
    if data.folder is None:
        return
    place = Path(str(data.with_whole_paths().folder))
    if place.exists():
        return
    why = f"there is none at {place}"
    if not data.folder.startswith("~") and not Path(data.folder).is_absolute():
        why = f"the settings name it as seen from where the training was started, and here {why}"
    raise FileNotFoundError(f"the run in {run} was trained on the folder {data.folder}; {why}: {mend}")
