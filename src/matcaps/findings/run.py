"""One inspection from beginning to end."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from matcaps.findings.image import look_at_image
from matcaps.findings.journal import Journal
from matcaps.findings.poses import look_at_poses
from matcaps.findings.sets import look_at_set
from matcaps.findings.settings import RECORD_NAME, InspectSettings
from matcaps.findings.subject import open_subject
from matcaps.findings.viewpoint import look_at_viewpoint
from matcaps.training.record import command_line, source_commit, write_json


@dataclass(frozen=True)
class Findings:
    """What an inspection left.

    Attributes:
        folder: where the files are.
        files: the figures, with the endings that each has.
        record: what ``inspect.json`` holds: the image, the class activations on it, the sentences by what they are
            about, the command and the commit.
    """

    folder: Path
    files: tuple[str, ...]
    record: dict[str, Any]


def inspect_saved(settings: InspectSettings, report: Callable[[str], None] = lambda _: None) -> Findings:
    """Look inside a saved network: at one image, at what holds over a set, at poses and viewpoints.

    Args:
        settings: what to look at, and where to write.
        report: is given every sentence as it is found.

    Raises:
        FileNotFoundError: the network, the image or the data are missing.
        FileExistsError: a decoder is to be trained where there is one.
        ValueError: something does not fit; nothing was written.

    Example:
        >>> found = inspect_saved(InspectSettings("tutorial-mnist", image="photo.png", num_images=0))
        >>> len(found.record["activations"])
        10
    """
    subject = open_subject(settings)
    journal = Journal(settings.target, report)
    look_at_image(subject, journal)
    if subject.measured is not None:
        look_at_set(subject, journal)
    look_at_poses(subject, journal)
    look_at_viewpoint(subject, journal)
    record = {
        "image": subject.name,
        "true_class": None if subject.truth is None else subject.classes[subject.truth],
        "activations": dict(zip(subject.classes, subject.scores, strict=True)),
        "findings": journal.sentences,
        "figures": journal.figures,
        "network": settings.source,
        "command": command_line(),
        "commit": source_commit(),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    write_json(journal.folder / RECORD_NAME, record)
    return Findings(journal.folder, (*journal.files, RECORD_NAME), record)
