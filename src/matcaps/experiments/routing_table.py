"""The bench of routings as a table: each row's best configuration, on toys that it never trained on."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matcaps.experiments.fold_records import FoldRecipe, gather_folds
from matcaps.experiments.fold_statistics import Estimate, Table, compare, estimate
from matcaps.experiments.fold_table import MEASURES, Measure, object_names, tabulate
from matcaps.experiments.plan import MEASURE_FILES
from matcaps.experiments.records import read_measured
from matcaps.experiments.routing_bench import (
    BENCH_NAME,
    CONTENDERS,
    HELD_OUT,
    NO_ROUTING,
    Bench,
    Configuration,
    Contender,
    bench_of,
    configurations,
    is_of_elevations,
)
from matcaps.experiments.routing_runs import best_configuration, losses
from matcaps.experiments.tables import distinct, markdown, spread
from matcaps.experiments.viewpoints import read_curve
from matcaps.training.record import METRICS_NAME, RESULTS_NAME, read_json, read_metrics

_TURNED, _SHIFTED = 30, 4
"""The distortions that the table shows, in degrees and in pixels."""


@dataclass(frozen=True)
class BenchRow:
    """What is known of a row.

    Attributes:
        contender: the row.
        best: its best configuration; None where it is not known.
        searched: for each configuration its mean log-loss in the search; None where it is not done.
        recipe: the trainings of the best configuration; None without one.
        results: their results.json.
        measured: what was measured on their networks.
        novel: of each training on low elevations, the errors in per cent at those and at others.
    """

    contender: Contender
    best: Configuration | None = None
    searched: tuple[float | None, ...] = ()
    recipe: FoldRecipe | None = None
    results: tuple[Mapping[str, Any], ...] = ()
    measured: tuple[Mapping[str, Any], ...] = ()
    novel: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class GatheredBench:
    """A bench and what its folder has.

    Attributes:
        bench: as it was begun, with all rows.
        rows: every row, whether or not it was run.
    """

    bench: Bench
    rows: tuple[BenchRow, ...]

    def row(self, name: str) -> BenchRow:
        """The row with that name."""
        return next(row for row in self.rows if row.contender.name == name)


def gather_bench(base: Path) -> GatheredBench:
    """Read a bench's records.

    Raises:
        FileNotFoundError: the folder holds no bench.
        ValueError: a record is malformed.
    """
    if not (base / BENCH_NAME).is_file():
        raise FileNotFoundError(f"no bench of routings in {base}: matcaps experiment routings makes one")
    bench = bench_of(read_json(base / BENCH_NAME))
    return GatheredBench(bench, tuple(_gather_row(bench, contender, base) for contender in CONTENDERS))


def _gather_row(bench: Bench, contender: Contender, base: Path) -> BenchRow:
    searched = []
    for configuration in configurations(bench, contender):
        own = losses(bench, configuration, base)
        known = [loss for loss in own if loss is not None]
        searched.append(sum(known) / len(known) if len(known) == len(own) else None)
    row = BenchRow(contender, best_configuration(bench, contender, base), tuple(searched))
    if row.best is None:
        return row
    gathered = gather_folds([base / row.best.name])
    (recipe,) = gathered.recipes  # what they left out, and their seeds, are all in which they differ
    file = MEASURE_FILES[HELD_OUT]
    novel = [
        folder
        for folder in sorted((base / row.best.name).iterdir())
        if is_of_elevations(folder.name) and (folder / RESULTS_NAME).is_file()
    ]
    return replace(
        row,
        recipe=recipe,
        results=tuple(read_json(run.folder / RESULTS_NAME) for run in recipe.runs),
        measured=tuple(one for run in recipe.runs if (one := read_measured(run.folder / file, base))),
        novel=tuple(
            (curve[-1].familiar, curve[-1].novel)
            for folder in novel
            if (curve := read_curve(read_metrics(folder / METRICS_NAME)))
        ),
    )


def table_of(gathered: GatheredBench, row: BenchRow, measure: Measure) -> Table | None:
    """A measure of a row for every toy that any row left out; None where the row has none."""
    if row.recipe is None:
        return None
    recipes = [one.recipe for one in gathered.rows if one.recipe is not None]
    return tabulate(row.recipe, object_names(recipes), measure)


def make_routing_table(gathered: GatheredBench) -> str:
    """Write a bench as Markdown."""
    bench = gathered.bench
    parts = [
        "## Routings, at equal parameters and equal tuning",
        _circumstances(bench),
        markdown(_HEADER, [_line(gathered, row) for row in gathered.rows]),
        _how(gathered),
        _search(gathered),
    ]
    origins = sorted({one["data_origin"] for row in gathered.rows for one in row.results})
    return "\n\n".join([*parts, *(f"Data: {origin}." for origin in origins)]) + "\n"


_HEADER = [
    "routing",
    "error, %",
    "95 %",
    "log-loss",
    "95 %",
    "log-loss less that of no routing",
    "p",
    "true class's share of data, first → last",
    "its votes nearest, first → last",
    "elevations: familiar → novel, %",
    f"turned {_TURNED}°, %",
    f"shifted {_SHIFTED} px, %",
    "s an epoch",
    "parameters",
    "seeds",
    "trainings",
]


def _line(gathered: GatheredBench, row: BenchRow) -> list[str]:
    name = row.contender.title
    if row.recipe is None or row.best is None:
        done = sum(loss is not None for loss in row.searched)
        state = f"not run: {done} of {len(row.searched)} configurations" if done else "not run"
        if done == len(row.searched):
            state = "diverged, each configuration"
        return [name, state, *[""] * (len(_HEADER) - 2)]
    cells = [name]
    for measure in MEASURES:
        own = table_of(gathered, row, measure)
        assert own is not None
        cells += interval_cells(estimate(own.rows(own.known)), measure.digits)
    cells += _against_none(gathered, row)
    cells += _agreement(row)
    novel = [statistics.mean(values) for values in zip(*row.novel, strict=True)]
    cells.append(f"{novel[0]:.1f} → {novel[1]:.1f}" if novel else "–")
    cells += [_distorted(row, "rotation", "degrees", _TURNED), _distorted(row, "shift", "pixels", _SHIFTED)]
    seconds = [one["num_train_images"] / one["images_per_second"] for one in row.results if one["images_per_second"]]
    cells.append(f"{statistics.median(seconds):.3g}" if seconds else "–")
    cells.append(distinct(f"{one['num_parameters']:,}" for one in row.results))
    cells.append(", ".join(map(str, row.recipe.seeds)))
    cells.append(str(len(row.recipe.runs)))
    return cells


def interval_cells(interval: Estimate, digits: int) -> list[str]:
    """A mean, and its interval."""
    return [f"{interval.mean:.{digits}f}", f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"]


def _against_none(gathered: GatheredBench, row: BenchRow) -> list[str]:
    measure = MEASURES[1]
    none, own = table_of(gathered, gathered.row(NO_ROUTING), measure), table_of(gathered, row, measure)
    if row.contender.name == NO_ROUTING or none is None or own is None or not (none.known & own.known).any():
        return ["–", "–"]
    comparison = compare(none, own)
    low, high = comparison.difference.low, comparison.difference.high
    return [f"{comparison.difference.mean:+.3f} ({low:+.3f} to {high:+.3f})", f"{comparison.p:.2g}"]


def _agreement(row: BenchRow) -> list[str]:
    """Over the networks, of the first and of the last iteration; "–" of a network without capsules."""
    known = [one["agreement"] for one in row.measured if one.get("agreement")]
    cells = []
    for name in ("share_true", "nearest_is_true"):
        ends = [(100 * one[name][0], 100 * one[name][-1], len(one[name])) for one in known]
        if not ends:
            cells.append("–")
            continue
        first, last = (statistics.mean(end[place] for end in ends) for place in (0, 1))
        cells.append(f"{first:.0f} → {last:.0f} %" if ends[0][2] > 1 else f"{last:.0f} %")
    return cells


def _distorted(row: BenchRow, kind: str, unit: str, amount: int) -> str:
    errors = [
        entry["error_percent"] for one in row.measured for entry in one["distortions"][kind] if entry[unit] == amount
    ]
    return spread(errors, 1) if errors else "–"


def _circumstances(bench: Bench) -> str:
    limits = [
        *([] if bench.max_train_images is None else [f"at most {bench.max_train_images:,} images to train on"]),
        *([f"with {', '.join(bench.changes)}"] if bench.changes else []),
        *([] if bench.max_test_images is None else [f"at most {bench.max_test_images:,} to test on"]),
    ]
    return (
        f"Recipe {bench.recipe}, {bench.epochs} epochs{', ' if limits else ''}{', '.join(limits)}; toys "
        f"{', '.join(map(str, bench.folds))} of each class left out in turn; {bench.num_configurations} of each row's "
        f"six configurations; seeds {', '.join(map(str, bench.seeds))} at the best of them"
        f"{'' if bench.elevations else '; no trainings on low elevations'}. The test part was not looked at."
    )


def _how(gathered: GatheredBench) -> str:
    text = (
        "Error and log-loss: on the toys left out, each counting alike; intervals: a bootstrap over toys and, for each "
        "fold, seeds; p: sign flips over toys, for one comparison. The best configuration was chosen on the same toys, "
        "for all rows alike, so each figure is a little too good. Agreement and distorted images: on toys left out, at "
        "most 500 images. Seconds an epoch: of the last epoch, on whatever else the machine did then."
    )
    one_seed = [row.contender.name for row in gathered.rows if row.recipe is not None and len(row.recipe.seeds) == 1]
    if one_seed:
        text += f" One seed only, so that the interval has none of a seed's share: {', '.join(one_seed)}."
    return text


def _search(gathered: GatheredBench) -> str:
    lines = []
    for row in gathered.rows:
        if any(loss is not None for loss in row.searched):
            names = [
                one.name.removeprefix(f"{row.contender.name}-") for one in configurations(gathered.bench, row.contender)
            ]
            tried = zip(names, row.searched, strict=True)
            best = "" if row.best is None else row.best.name.removeprefix(f"{row.contender.name}-")
            lines.append([row.contender.title, best, "; ".join(f"{name} {_loss(loss)}" for name, loss in tried)])
    return (
        markdown(["routing", "best", "log-loss of each configuration, first seed"], lines)
        if lines
        else "No row was run."
    )


def _loss(loss: float | None) -> str:
    if loss is None:
        return "not run"
    return "diverged" if loss == float("inf") else f"{loss:.3f}"


def rows_with_results(gathered: GatheredBench) -> Sequence[BenchRow]:
    """The rows that have trainings of a best configuration."""
    return [row for row in gathered.rows if row.recipe is not None]
