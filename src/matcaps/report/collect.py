"""The facts of a run that its report shows: what its folder holds, and its worst mistakes."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from matcaps.data import load_data
from matcaps.findings.settings import INSPECTION_NAME, RECORD_NAME
from matcaps.training.evaluation import class_scores
from matcaps.training.record import METRICS_NAME, RESULTS_NAME, SETTINGS_NAME, read_json, read_metrics, read_settings
from matcaps.training.run import load_run


@dataclass(frozen=True, eq=False)
class Mistake:
    """A test image that the network takes for another class.

    Attributes:
        index: its place in the published part.
        image: ``[C, H, W]``, uint8, as stored.
        label: the true class's name.
        predicted: the name of the class that it was taken for.
        lead: by how much that class's score exceeds the true one's.
    """

    index: int
    image: NDArray[np.uint8]
    label: str
    predicted: str
    lead: float


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run.

    Attributes:
        folder: where it is.
        settings: its settings.yaml.
        results: its results.json.
        metrics: the rows of its metrics.csv.
        mistakes: the worst ones, worst first; empty if the data are not there, or if there are none.
        note: why there are no mistakes to show; empty if there are.
        findings: what ``matcaps inspect`` said of the run, by what it is about; empty if it has not been inspected.
        inspected: the pictures that it left, PNG, by name.
    """

    folder: Path
    settings: dict[str, Any]
    results: dict[str, Any]
    metrics: list[dict[str, str]]
    mistakes: list[Mistake] = field(default_factory=list)
    note: str = ""
    findings: dict[str, str] = field(default_factory=dict)
    inspected: dict[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name


def collect_run(folder: Path, *, num_mistakes: int = 12, root: str | None = None) -> RunFacts:
    """Read a finished run, and classify its test images to find the worst mistakes.

    Args:
        folder: the run's folder.
        num_mistakes: how many to show at most.
        root: folder that holds the data sets; None: as in the run.

    Raises:
        FileNotFoundError: the folder holds no run, or one that has not finished.
        ValueError: its files are malformed.
    """
    settings = read_settings(folder / SETTINGS_NAME)
    network, typed = load_run(folder)
    if not (folder / RESULTS_NAME).is_file():
        raise FileNotFoundError(
            f"the run in {folder} has no {RESULTS_NAME} yet: finish it with matcaps train --resume {folder}"
        )
    results = read_json(folder / RESULTS_NAME)
    findings, inspected = _read_inspection(folder / INSPECTION_NAME)
    facts = RunFacts(
        folder,
        settings,
        results,
        read_metrics(folder / METRICS_NAME),
        findings=findings,
        inspected=inspected,
    )
    data = typed.data if root is None else replace(typed.data, root=root)
    try:
        bundle = load_data(data, typed.seed)
    except FileNotFoundError as error:
        return replace(facts, note=f"The worst mistakes are not shown, because the data are not here: {error}")
    mistakes: list[Mistake] = []
    with torch.inference_mode():
        for batch in bundle.loader("test", batch_size=200):
            scores = class_scores(network, batch.images)
            predicted = scores.argmax(dim=1)
            leads = scores.amax(dim=1) - scores.gather(1, batch.labels[:, None])[:, 0]
            for place in (predicted != batch.labels).nonzero().flatten().tolist():
                mistakes.append(
                    Mistake(
                        index=int(batch.indices[place]),
                        image=np.empty(0, np.uint8),
                        label=bundle.classes[int(batch.labels[place])],
                        predicted=bundle.classes[int(predicted[place])],
                        lead=float(leads[place]),
                    )
                )
    worst = sorted(mistakes, key=lambda mistake: -mistake.lead)[:num_mistakes]
    places = {int(index): place for place, index in enumerate(bundle.test.indices)}
    shown = [replace(one, image=bundle.test.images[places[one.index]].numpy()) for one in worst]
    note = "" if shown else "No test image is taken for another class."
    return replace(facts, mistakes=shown, note=note)


def _read_inspection(folder: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """What ``matcaps inspect`` found and drew, where it has been there."""
    path = folder / RECORD_NAME
    if not path.is_file():
        return {}, {}
    pictures = {picture.stem: picture.read_bytes() for picture in sorted(folder.glob("*.png"))}
    return dict(read_json(path).get("findings", {})), pictures
