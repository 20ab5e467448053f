"""The parts of an experiment: rows, seeds, and the trials of each; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matcaps.training.settings import Accelerator, TrainSettings

DIVERGED_NAME = "diverged.json"
"""The file in a training's folder that records that, and where, numbers became not finite."""

MEASURE_FILES = {"attacks": "attacks.json", "distortions": "distortions.json", "held_out": "held_out.json"}
"""The file in a trial's folder with what was measured after training, by :attr:`Experiment.measure`."""


@dataclass(frozen=True)
class Row:
    """One line of an experiment's table.

    Attributes:
        name: its name on the command line and in folders.
        title: its description.
        settings: how its network is trained; the seed and, if asked, the epochs are set for each trial.
        paper: the paper's error in per cent, by the part's name; empty if it reports none.
        trained_in: the experiment whose training this row uses; None: this row has its own.
        trained_as: that experiment's row.
    """

    name: str
    title: str
    settings: TrainSettings
    paper: tuple[tuple[str, float], ...] = ()
    trained_in: str | None = None
    trained_as: str | None = None


@dataclass(frozen=True)
class Experiment:
    """A list of rows, each trained with some seeds and perhaps measured afterwards.

    Attributes:
        name: its name on the command line.
        title: its question.
        rows: the networks that it compares.
        caveat: a note that belongs to all its outputs.
        measure: what is measured in addition to the test accuracy: a name from ``MEASURES``, or None.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    caveat: str = ""
    measure: str | None = None

    def row(self, name: str) -> Row:
        """The row with that name.

        Raises:
            ValueError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise ValueError(
            f"rows of the experiment {self.name!r} must be names from {',  '.join(row.name for row in self.rows)}; got "
            f"{name!r}"
        )


@dataclass(frozen=True)
class Trial:
    """One row with one seed: a training, its folder, and what is measured afterwards.

    Attributes:
        experiment: the experiment's name.
        row: its row.
        settings: how the network is trained, with its seed.
        asked_epochs: the epochs asked for, for every training; None: each row has its own.
    """

    experiment: str
    row: Row
    settings: TrainSettings
    asked_epochs: int | None = None

    @property
    def name(self) -> str:
        """The name of the folder, the same for the training and for what is measured."""
        return trial_name(self.row.name, self.settings.epochs, self.settings.seed)

    def folder(self, base: Path) -> Path:
        """The folder of the measurement's record."""
        return base / self.experiment / self.name

    def training_folder(self, base: Path) -> Path:
        """The folder of the training, which may belong to another experiment."""
        row = self.row
        name = trial_name(row.trained_as or row.name, self.settings.epochs, self.settings.seed)
        return base / (row.trained_in or self.experiment) / name


def trial_name(row: str, epochs: int, seed: int) -> str:
    """``iterations-3-100epochs-seed0``: what differs between the trials of a row."""
    return f"{row}-{epochs}epochs-seed{seed}"


def make_trials(
    experiment: Experiment,
    *,
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    epochs: int | None = None,
    shard: tuple[int, int] = (1, 1),
    root: str | None = None,
    max_train_images: int | None = None,
    max_test_images: int | None = None,
    accelerator: Accelerator | None = None,
) -> list[Trial]:
    """List an experiment's trials, seed by seed, so that every row has one before any has two.

    Args:
        experiment: the experiment.
        rows: names of rows; None: all.
        seeds: of the trainings.
        epochs: of every training; None: each row's own.
        shard: ``(k, n)``: the k-th of n parts, from 1; the parts together are all trials, and no trial is in two.
        root: folder that holds the data sets.
        max_train_images: train on at most so many images; for a quick look.
        max_test_images: test on at most so many.
        accelerator: where to compute, "auto", "cpu" or "gpu"; None: each row's own.

    Raises:
        ValueError: an unknown row, a shard out of range, a seed twice, or settings out of range.
    """
    part, parts = shard
    if not 1 <= part <= parts:
        raise ValueError(f"shard must be k/n with k from 1 to n; got {part}/{parts}: for example 2/4")
    for name, values in (("seeds", seeds), ("rows", rows or ())):
        if len(set(values)) != len(values):
            raise ValueError(f"{name} must be different; got {', '.join(map(str, values))}")
    chosen = experiment.rows if rows is None else tuple(experiment.row(name) for name in rows)
    trials = []
    for seed in seeds:
        for row in chosen:
            data = row.settings.data
            settings = replace(
                row.settings,
                seed=seed,
                epochs=row.settings.epochs if epochs is None else epochs,
                accelerator=accelerator or row.settings.accelerator,
                data=replace(
                    data,
                    root=data.root if root is None else root,
                    max_train_images=data.max_train_images if max_train_images is None else max_train_images,
                    max_test_images=data.max_test_images if max_test_images is None else max_test_images,
                ),
            )
            trials.append(Trial(experiment.name, row, settings, epochs))
    return trials[part - 1 :: parts]


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``"2/4"``.

    Raises:
        ValueError: it is not two whole numbers with a slash between them.
    """
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise ValueError(f"shard must be k/n, two whole numbers with k from 1 to n; got {text!r}: for example 2/4")
    return int(part), int(parts)


def parse_list(text: str) -> list[str]:
    """Read ``"a,b"``, in brackets or not."""
    return [part.strip() for part in text.strip("[]").split(",")]


def parse_seeds(text: str) -> list[int]:
    """Read ``"0,1,2"``.

    Raises:
        ValueError: it is not a list of whole numbers of at least 0, separated by commas.
    """
    parts = parse_list(text)
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"seeds must be whole numbers separated by commas; got {text!r}: for example 0,1,2")
    return [int(part) for part in parts]
