"""One inspection, from beginning to end."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from matcaps._progress import watched
from matcaps.data.splits import limit_images
from matcaps.inspect.display import NothingToShowError
from matcaps.inspect.opening import SavedInspection, open_inspection
from matcaps.inspect.settings import RECORD_NAME, InspectSettings
from matcaps.inspect.traversal import explained_variance
from matcaps.inspect.views import VIEWS
from matcaps.inspect.writer import FindingsWriter
from matcaps.models.pretrained import save_weights
from matcaps.training.decoding import train_decoder
from matcaps.training.record import command_line, source_commit, write_json


@dataclass(frozen=True)
class Findings:
    """The results of an inspection.

    Attributes:
        folder: where the files are.
        files: the files' names; a figure's name is followed by its endings.
        record: the content of ``inspect.json``: the image, its class activations, the sentences by
            topic, the command and the commit.
    """

    folder: Path
    files: tuple[str, ...]
    record: dict[str, Any]


def inspect_saved(settings: InspectSettings, report: Callable[[str], None] = lambda _: None) -> Findings:
    """Inspect a saved network: on one image, over a labelled set, and its poses and viewpoints.

    Args:
        settings: what to inspect, and where to write.
        report: called with every sentence.

    Raises:
        FileNotFoundError: the network, the image or the data are missing.
        FileExistsError: a decoder is to be trained, but there is one already.
        ValueError: something does not fit; nothing was written.

    Example:
        >>> findings = inspect_saved(InspectSettings("tutorial-mnist", image="photo.png", num_images=0))
        >>> len(findings.record["activations"])
        10
    """
    inspection = open_inspection(settings)
    writer = FindingsWriter(settings.target, report)
    for name, view in watched(VIEWS.items(), "views"):
        if name == "poses":
            inspection = _with_decoder(inspection, writer)
        try:
            display = view.from_inspection(inspection)
        except NothingToShowError as reason:
            writer.add_sentence(name, str(reason))
            continue
        if display is not None:
            writer.write(name, display)
    record = {
        "image": inspection.name,
        "true_class": None if inspection.truth is None else inspection.classes[inspection.truth],
        "activations": dict(zip(inspection.classes, inspection.scores, strict=True)),
        "findings": writer.sentences,
        "figures": writer.figures,
        "network": settings.source,
        "command": command_line(),
        "commit": source_commit(),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    write_json(writer.folder / RECORD_NAME, record)
    return Findings(writer.folder, (*writer.files, RECORD_NAME), record)


def _with_decoder(inspection: SavedInspection, writer: FindingsWriter) -> SavedInspection:
    """The inspection with its decoder, which is trained first if the settings ask for it; reports how good it is."""
    if inspection.settings.train_decoder:
        assert inspection.bundle is not None
        trained = train_decoder(
            inspection.network,
            replace(inspection.bundle, test=limit_images(inspection.bundle.test, 1000, 0)),
            epochs=inspection.settings.decoder_epochs,
            report=writer.report,
        )
        save_weights(trained.decoder, inspection.decoder_path)
        writer.add_sentence("decoder trained", f"in {trained.seconds:.0f} s, saved as {inspection.decoder_path}")
        inspection = replace(inspection, decoder=trained.decoder)
    if inspection.decoder is not None and inspection.measured is not None and inspection.poses is not None:
        share = explained_variance(
            inspection.decoder, inspection.poses, inspection.measured, inspection.saved.transform
        )
        count = len(inspection.measured)
        writer.add_sentence(
            "decoder", f"explains {100 * share:.0f} % of the variance of {count} images about their mean"
        )
    return inspection
