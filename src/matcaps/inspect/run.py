"""One inspection from beginning to end."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from matcaps._progress import watched
from matcaps.data.splits import limit_images
from matcaps.inspect.display import NothingToShowError
from matcaps.inspect.journal import Journal
from matcaps.inspect.opening import SavedSubject, open_subject
from matcaps.inspect.settings import RECORD_NAME, InspectSettings
from matcaps.inspect.traversal import explained_variance
from matcaps.inspect.views import VIEWS
from matcaps.models.pretrained import save_weights
from matcaps.training.decoding import train_decoder
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
    for name, view in watched(VIEWS.items(), "views"):
        if name == "poses":
            subject = _with_decoder(subject, journal)
        try:
            display = view.from_subject(subject)
        except NothingToShowError as reason:
            journal.say(name, str(reason))
            continue
        if display is not None:
            journal.write(name, display)
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


def _with_decoder(subject: SavedSubject, journal: Journal) -> SavedSubject:
    """The subject with a decoder, which is trained first where that was asked for, and how good it is."""
    if subject.settings.train_decoder:
        assert subject.bundle is not None
        trained = train_decoder(
            subject.network,
            replace(subject.bundle, test=limit_images(subject.bundle.test, 1000, 0)),
            epochs=subject.settings.decoder_epochs,
            report=journal.report,
        )
        save_weights(trained.decoder, subject.decoder_path)
        journal.say("decoder trained", f"in {trained.seconds:.0f} s, saved as {subject.decoder_path}")
        subject = replace(subject, decoder=trained.decoder)
    if subject.decoder is not None and subject.measured is not None and subject.poses is not None:
        share = explained_variance(subject.decoder, subject.poses, subject.measured, subject.saved.transform)
        count = len(subject.measured)
        journal.say("decoder", f"explains {100 * share:.0f} % of the variance of {count} images about their mean")
    return subject
