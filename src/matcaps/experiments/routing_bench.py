"""All routings on one bench: what is compared, and how each is tuned; imports no torch.

Stem, votes, loss, data and optimiser are the same for all, and the parameters within 5 % of EM's. Each row has the same
number of configurations, its learning rate and one choice of its own, which are judged on toys of the training part
that they left out (:mod:`matcaps.experiments.folds`). The best one is trained with more seeds. The test part stays
closed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from matcaps.data.settings import SplitSettings
from matcaps.experiments.folds import TRAINING_TOYS, fold_experiment
from matcaps.experiments.plan import Experiment, Row, Trial, make_trials
from matcaps.training.recipes import recipe_settings
from matcaps.training.settings import Accelerator, ModelSettings, TrainSettings

ROUTINGS = "routings"
"""The name for ``matcaps experiment`` and ``matcaps table``."""

BENCH_NAME = "bench.json"
"""The file in a bench's folder that says how it was begun."""

NO_ROUTING = "average"
"""The row with which the others are compared."""

HELD_OUT = "held_out"
"""What is measured on the networks of the best configuration; see :data:`matcaps.experiments.measures.MEASURES`."""

_RATES = (1.0, 1 / 3, 3.0)
"""Factors of both learning rates."""

_ELEVATION = "elevation"


@dataclass(frozen=True)
class Choice:
    """What a row may have one way or another.

    Attributes:
        name: in folders' names.
        model: fields of the network.
        loss: of the training; None: the recipe's.
    """

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    loss: str | None = None


@dataclass(frozen=True)
class Contender:
    """A row of the bench.

    Attributes:
        name: on the command line and in folders' names.
        title: in the table.
        choices: the two that are tried.
        preset: of its network.
        model: fields in which its network differs from the preset.
        rate: factor of the recipe's learning rates at which its search is centred.
    """

    name: str
    title: str
    choices: tuple[Choice, Choice]
    preset: str = "annealed-small"
    model: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0


@dataclass(frozen=True)
class Configuration:
    """A way to train a row.

    Attributes:
        contender: the row.
        name: of the folder in which its trainings lie.
        settings: of its trainings, before objects are left out.
    """

    contender: Contender
    name: str
    settings: TrainSettings


_COMPETITION = (Choice("child"), Choice("window", {"competition": "window"}))
_CALIBRATION = (Choice("beta", {"calibration": "beta"}), Choice("full"))
_ITERATIONS = (Choice("3"), Choice("2", {"iterations": 2}))
_LOSS = (Choice("spread", loss="spread"), Choice("entropy", loss="cross-entropy"))


def _of_size(types: int) -> tuple[Choice, Choice]:
    """Two ways to 68 K parameters: tables of rank 3, or the paper's own and fewer types of capsules."""
    return Choice("rank3", {"routing_rank": 3}), Choice(
        f"{types}types", {"conv_capsules1": types, "conv_capsules2": types}
    )


CONTENDERS: tuple[Contender, ...] = (
    Contender(NO_ROUTING, "no routing: the mean of the votes", _COMPETITION, model={"routing": "average"}),
    Contender(
        "uniform",
        "uniform shares: EM in each window, one iteration",
        _CALIBRATION,
        model={"iterations": 1, "competition": "window"},
    ),
    Contender("random", "shares drawn at random (Paik 2019)", _COMPETITION, model={"routing": "random"}),
    *(
        Contender(
            f"em-{count}",
            f"EM as published, {count} iteration{'s' * (count > 1)} (Hinton 2018)",
            _CALIBRATION,
            model={"annealing": 1.0, "iterations": count},
        )
        for count in (1, 2, 3)
    ),
    Contender("softened", "EM, softened", (Choice("0.045"), Choice("0.0625", {"annealing": 0.0625}))),
    Contender(
        "agreeing",
        "EM, agreeing",
        (Choice("each"), Choice("shared", {"class_beta_activation": "shared", "class_iterations": 5})),
        preset="agreement-small",
    ),
    Contender("dynamic", "dynamic (Sabour 2017)", _ITERATIONS, model={"routing": "dynamic"}),
    Contender("vb", "variational Bayes (De Sousa Ribeiro 2020)", _ITERATIONS, model={"routing": "vb"}),
    Contender("self", "self-routing (Hahn 2019)", _of_size(10), model={"routing": "self"}),
    Contender("heinsen", "EM with ignored data (Heinsen 2019)", _of_size(15), model={"routing": "heinsen"}),
    Contender("attention", "self-attention (Mazzia 2021)", _of_size(15), model={"routing": "attention"}),
    Contender(
        "cnn",
        "a CNN of 69 K parameters",
        _LOSS,
        preset="baseline-cnn",
        model={"channels1": 16, "channels2": 32, "hidden_units": 27, "dropout": 0.0},
        rate=1 / 3,  # the recipe smallnorb-cnn has a third of smallnorb's
    ),
    Contender(
        "stem",
        "the stem with pooling, 69 K parameters",
        _LOSS,
        preset="baseline-cnn",
        model={"convolutions": "stem", "channels1": 64, "hidden_units": 21, "dropout": 0.0},
        rate=1 / 3,
    ),
)


@dataclass(frozen=True)
class Bench:
    """What is compared, and on what.

    Attributes:
        recipe: the name of the recipe whose data, loss and optimiser all rows have.
        epochs: of every training.
        contenders: the rows.
        num_configurations: how many of each row's are tried, 1 to 6: the first has the recipe's rates and the row's
            first choice, the second its second choice, then other rates.
        folds: the training toys that are left out, one after another.
        seeds: of the best configuration's trainings; the first is that of the search.
        elevations: whether the best configuration is also trained on low elevations alone.
        max_train_images: train on at most so many images; for a quick look.
        max_test_images: test on at most so many.
        changes: settings in place of the recipe's, for all rows, such as ``"optimizer.ema_decay=0.98"``.
        base: the recipe's settings with these changes; None: the recipe's.
    """

    recipe: str = "smallnorb"
    epochs: int = 20
    contenders: tuple[Contender, ...] = CONTENDERS
    num_configurations: int = 2 * len(_RATES)
    folds: tuple[int, ...] = TRAINING_TOYS
    seeds: tuple[int, ...] = (0, 1, 2)
    elevations: bool = True
    max_train_images: int | None = None
    max_test_images: int | None = None
    changes: tuple[str, ...] = ()
    base: TrainSettings | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.num_configurations <= 2 * len(_RATES):
            raise ValueError(f"configurations must be 1 to {2 * len(_RATES)}; got {self.num_configurations}")
        for name, values, known in (
            ("only", tuple(one.name for one in self.contenders), tuple(one.name for one in CONTENDERS)),
            ("folds", self.folds, TRAINING_TOYS),
        ):
            if not values or len(set(values)) != len(values) or not set(values) <= set(known):
                raise ValueError(f"{name} must be different ones of {', '.join(map(str, known))}; got {list(values)}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be different; got {list(self.seeds)}")

    def begun_with(self) -> dict[str, Any]:
        """What must not change while it lasts; rows may be run in any order and at any time."""
        values = {name: value for name, value in vars(self).items() if name not in ("contenders", "base")}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def bench_of(values: Mapping[str, Any]) -> Bench:
    """The bench that was begun with these :meth:`Bench.begun_with`."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return Bench(**fields)


def contenders_named(names: Sequence[str] | None) -> tuple[Contender, ...]:
    """Some rows by their names, in the bench's order; all if None.

    Raises:
        ValueError: there is none of a name.
    """
    known = {one.name: one for one in CONTENDERS}
    for name in names or ():
        if name not in known:
            raise ValueError(f"only must name rows from {', '.join(known)}; got {name!r}")
    return tuple(one for one in CONTENDERS if names is None or one.name in names)


def configurations(bench: Bench, contender: Contender) -> tuple[Configuration, ...]:
    """The configurations of a row that the bench tries, in order."""
    base = recipe_settings(bench.recipe) if bench.base is None else bench.base
    first, second = contender.choices
    order = [(first, 1.0), (second, 1.0), *((one, rate) for one in (first, second) for rate in _RATES[1:])]
    return tuple(_configuration(base, contender, *one) for one in order[: bench.num_configurations])


def _configuration(base: TrainSettings, contender: Contender, choice: Choice, rate: float) -> Configuration:
    optimizer, factor = base.optimizer, contender.rate * rate
    matrices = optimizer.matrix_learning_rate
    settings = replace(
        base,
        model=ModelSettings(contender.preset, **{**contender.model, **choice.model}),
        loss=base.loss if choice.loss is None else replace(base.loss, name=choice.loss),
        optimizer=replace(
            optimizer,
            learning_rate=_rounded(factor * optimizer.learning_rate),
            matrix_learning_rate=None if matrices is None else _rounded(factor * matrices),
        ),
        agreement_every=0,
    )
    return Configuration(contender, f"{contender.name}-{choice.name}-rate{rate:.2g}", settings)


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")


Job = tuple[Experiment, Trial]
"""A training, and what is measured after it."""


def search_jobs(
    bench: Bench, *, root: str | None = None, accelerator: Accelerator | None = None
) -> list[tuple[Configuration, Job]]:
    """The trainings by which each row's best configuration is found: every row's first, then every row's second."""
    per_row = [configurations(bench, one) for one in bench.contenders]
    jobs = []
    for place in range(bench.num_configurations):
        for row in per_row:
            experiment = fold_experiment(row[place].name, row[place].settings)
            trials = _trials(bench, experiment, bench.seeds[:1], root, accelerator)
            jobs += [(row[place], (experiment, trial)) for trial in trials]
    return jobs


def final_jobs(
    bench: Bench, best: Configuration, *, root: str | None = None, accelerator: Accelerator | None = None
) -> Iterator[Job]:
    """The trainings of a row's best configuration, with what is measured on each, seed by seed."""
    measured = replace(fold_experiment(best.name, best.settings), measure=HELD_OUT)
    novel = _elevation_experiment(best)
    for seed in bench.seeds:
        for experiment in (measured, novel) if bench.elevations else (measured,):
            yield from ((experiment, trial) for trial in _trials(bench, experiment, [seed], root, accelerator))


def _trials(
    bench: Bench, experiment: Experiment, seeds: Sequence[int], root: str | None, accelerator: Accelerator | None
) -> list[Trial]:
    rows = [row.name for row in experiment.rows if int(row.name[-1]) in bench.folds]
    return make_trials(
        experiment,
        rows=rows,
        seeds=seeds,
        epochs=bench.epochs,
        root=root,
        max_train_images=bench.max_train_images,
        max_test_images=bench.max_test_images,
        accelerator=accelerator,
    )


def _elevation_experiment(configuration: Configuration) -> Experiment:
    """Trainings on the three lowest elevations of four toys of each class, tested on the fifth, at the six others."""
    rows = []
    for toy in TRAINING_TOYS:
        split = SplitSettings(rule="elevation", source="train", test_instances=(toy,))
        settings = replace(
            configuration.settings,
            data=replace(configuration.settings.data, split=split),
            test="end",
            views_every=0,
            watched_parts=("familiar_test", "test"),
            watch_every=1_000_000,  # the last epoch is always watched
        )
        rows.append(Row(f"{_ELEVATION}{toy}", f"low elevations; toy {toy} of each class left out", settings))
    return Experiment(configuration.name, f"{configuration.name}: novel elevations", tuple(rows))


def is_of_elevations(trial_name: str) -> bool:
    """Whether a training's folder is one of those on low elevations."""
    return trial_name.startswith(_ELEVATION)
