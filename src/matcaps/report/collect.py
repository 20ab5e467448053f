"""The facts of a run that its report shows: what its folder holds, and its worst mistakes."""

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matcaps._paths import user_path
from matcaps.data import load_data
from matcaps.inspect.mistakes import Mistake, ShownMistake
from matcaps.inspect.settings import INSPECTION_NAME, RECORD_NAME
from matcaps.training.data_record import changed_data
from matcaps.training.devices import place
from matcaps.training.evaluation import evaluate
from matcaps.training.record import METRICS_NAME, RESULTS_NAME, SETTINGS_NAME, read_json, read_metrics, read_settings
from matcaps.training.run import load_run


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run.

    Attributes:
        folder: where it is.
        settings: its settings.yaml.
        results: its results.json.
        metrics: the rows of its metrics.csv.
        num_classes: of its network.
        mistakes: the worst ones, worst first; empty if the data are not there, or if there are none.
        note: why there are no mistakes to show; empty if there are.
        findings: what ``matcaps inspect`` said of the run, by what it is about; empty if it has not been inspected.
        inspected: the pictures that it left, PNG, by name.
    """

    folder: Path
    settings: dict[str, Any]
    results: dict[str, Any]
    metrics: list[dict[str, str]]
    num_classes: int
    mistakes: list[ShownMistake] = field(default_factory=list)
    note: str = ""
    findings: dict[str, str] = field(default_factory=dict)
    inspected: dict[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name


def collect_run(folder: Path, *, num_mistakes: int = 12, root: str | None = None) -> RunFacts:
    """Read a finished run, and show its worst mistakes on the test images.

    A run of an earlier version did not keep them: its test images are classified again.

    Args:
        folder: the run's folder.
        num_mistakes: how many to show; 24 are kept.
        root: folder that holds the data sets; None: as in the run.

    Raises:
        FileNotFoundError: the folder holds no run, or one that has not finished.
        ValueError: its files are malformed.
    """
    folder = user_path(folder)
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
        network.num_classes,
        findings=findings,
        inspected=inspected,
    )
    if results["test"] is None:
        note = "There are none to show, for this run looked at no test image; matcaps eval tests it."
        return replace(facts, note=note)
    data = typed.data if root is None else replace(typed.data, root=root)
    try:
        bundle = load_data(data, typed.seed)
    except FileNotFoundError as error:
        return replace(facts, note=f"The worst mistakes are not shown, because the data are not here: {error}")
    except ValueError as error:  # of the data alone: the run's own files have been read
        return replace(facts, note=f"The worst mistakes are not shown, because the data cannot be read: {error}")
    changed = changed_data(folder, bundle)
    if changed:  # mistakes are known by the places of their images
        warnings.warn(f"the images are not those that the run in {folder} was made with: {changed}", stacklevel=2)
        note = f"The worst mistakes are not shown, because the images are not those of the run any more: {changed}."
        return replace(facts, note=note)
    if "worst" in results["test"]:
        try:
            worst = tuple(Mistake(**one) for one in results["test"]["worst"])
        except TypeError as error:
            raise ValueError(f"{folder / RESULTS_NAME}: its worst mistakes are malformed: {error}") from error
    else:
        loader = bundle.loader("test", batch_size=200, device=place(network))
        worst = evaluate(network, loader, bundle.classes).worst
    places = {int(index): place for place, index in enumerate(bundle.test.indices)}
    shown = [
        ShownMistake(mistake, bundle.test.images[places[mistake.index]].numpy())
        for mistake in worst[:num_mistakes]
        if mistake.index in places  # the data here may be others than the run's
    ]
    note = "" if shown else "No test image is taken for another class."
    return replace(facts, mistakes=shown, note=note)


def _read_inspection(folder: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """What ``matcaps inspect`` found and drew, where it has been there; of several times, the last."""
    path = folder / RECORD_NAME
    if not path.is_file():
        return {}, {}
    record = read_json(path)
    there = sorted(folder.glob("*.png"))
    drawn = record.get("figures", [picture.stem for picture in there])  # a version before had no such list
    return dict(record.get("findings", {})), {
        picture.stem: picture.read_bytes() for picture in there if picture.stem in drawn
    }
