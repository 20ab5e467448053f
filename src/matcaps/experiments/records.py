"""Read the results of an experiment's trials."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from matcaps.experiments.differences import differences
from matcaps.experiments.plan import DIVERGED_NAME, MEASURE_FILES, Experiment, Row, trial_name
from matcaps.models.files import file_digest
from matcaps.models.sources import WEIGHTS_NAME
from matcaps.training.record import (
    METRICS_NAME,
    RESULTS_NAME,
    SETTINGS_NAME,
    read_json,
    read_metrics,
    read_run_settings,
)

_NAME = re.compile(r"(?P<row>.+)-(?P<epochs>\d+)epochs-seed(?P<seed>\d+)")


@dataclass(frozen=True)
class TrialRecord:
    """The results of one trial.

    Attributes:
        row: its row.
        epochs: of its training.
        seed: of its training.
        state: "done"; "diverged"; or "unfinished", begun but without results.
        results: the training's results.json; empty unless done.
        metrics: rows of the training's metrics.csv.
        measured: the measurement after training; empty if there is none.
        differing: settings in which its training differs from the row's present settings, such as
            ``"optimizer.learning_rate: 0.01, 0.003"``.
    """

    row: Row
    epochs: int
    seed: int
    state: Literal["done", "diverged", "unfinished"]
    results: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, str]] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    @property
    def error_percent(self) -> float:
        """The test error, in per cent, of a training that is done.

        Raises:
            ValueError: it has not been tested.
        """
        if self.results["test"] is None:
            raise ValueError(
                f"the training of row {self.row.name}, {self.epochs} epochs, seed {self.seed} was not tested: matcaps "
                "train --resume with its folder and --test end does it"
            )
        return self.results["test"]["error_percent"]


def weights_digests(folders: Iterable[Path], base: Path) -> dict[str, str]:
    """SHA-256 of the weights in some trainings' folders, by the folder's path below ``base``."""
    return {folder.relative_to(base).as_posix(): file_digest(folder / WEIGHTS_NAME) for folder in folders}


def read_measured(path: Path, base: Path) -> dict[str, Any]:
    """A measurement, unless one of its networks has changed since.

    If the weights are missing, or the record is from a version that did not store their digests, it is accepted.

    Args:
        path: the measurement's file.
        base: the folder of all experiments.

    Returns:
        The file's content; empty if the file does not exist, or was made with other weights.
    """
    measured = read_json(path) if path.is_file() else {}
    digests = measured.get("weights", {})
    present = [base / name for name in digests if (base / name / WEIGHTS_NAME).is_file()]
    changed = any(digests[name] != digest for name, digest in weights_digests(present, base).items())
    return {} if changed else measured


def held_out_log_loss(folder: Path) -> float:
    """The mean log-loss on what a training left out, in nats, by which settings may be chosen."""
    results = read_json(folder / RESULTS_NAME)
    assert not results["looked_at_test_part"], f"{folder} looked at the test part, which may choose nothing"
    return float(results["test"]["log_loss"])


def gather(experiment: Experiment, base: Path) -> list[TrialRecord]:
    """Read the records of an experiment's trials, in the order of its rows, epochs and seeds.

    Args:
        experiment: the experiment.
        base: the folder of all experiments, as :func:`matcaps.experiments.run_trials` fills it.

    Raises:
        ValueError: a record is malformed.
    """
    records = []
    for row in experiment.rows:
        trained_in, trained_as = row.trained_in or experiment.name, row.trained_as or row.name
        for folder in sorted((base / trained_in).glob(f"{trained_as}-*epochs-seed*")):
            match = _NAME.fullmatch(folder.name)
            if match is None or match["row"] != trained_as or not folder.is_dir():
                continue
            epochs, seed = int(match["epochs"]), int(match["seed"])
            state: Literal["done", "diverged", "unfinished"] = "unfinished"
            results: dict[str, Any] = {}
            measured: dict[str, Any] = {}
            if (folder / DIVERGED_NAME).is_file():
                state = "diverged"
            elif (folder / RESULTS_NAME).is_file():
                state, results = "done", read_json(folder / RESULTS_NAME)
            if experiment.measure is not None:
                path = base / experiment.name / trial_name(row.name, epochs, seed) / MEASURE_FILES[experiment.measure]
                if state == "done":
                    measured = read_measured(path, base)
            metrics = read_metrics(folder / METRICS_NAME)
            differing: list[str] = []
            if (folder / SETTINGS_NAME).is_file():
                differing = differences(read_run_settings(folder), replace(row.settings, epochs=epochs, seed=seed))
            records.append(TrialRecord(row, epochs, seed, state, results, metrics, measured, differing))
    order = {row.name: index for index, row in enumerate(experiment.rows)}
    return sorted(records, key=lambda record: (order[record.row.name], record.epochs, record.seed))
