"""Compare trainings with left-out objects as Markdown: recipes side by side, object by object."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from matcaps.data.names import printable
from matcaps.experiments.fold_records import FoldRecipe, Gathered, recipe_differences
from matcaps.experiments.fold_statistics import (
    EXACT_OBJECTS,
    Comparison,
    Estimate,
    Table,
    compare,
    estimate,
    noise_floor,
)
from matcaps.experiments.tables import distinct, markdown


@dataclass(frozen=True)
class Measure:
    """A measure by which objects are compared.

    Attributes:
        attribute: its name in :class:`matcaps.experiments.fold_records.ObjectResult`.
        title: its name in tables.
        unit: of a difference.
        digits: number of decimals.
    """

    attribute: str
    title: str
    unit: str
    digits: int


MEASURES = (Measure("error_percent", "error, %", "points", 2), Measure("log_loss", "log-loss", "nats", 4))


def object_names(recipes: Iterable[FoldRecipe]) -> tuple[str, ...]:
    """Every object that any recipe has, in order."""
    return tuple(dict.fromkeys(name for recipe in recipes for name in recipe.objects))


def tabulate(recipe: FoldRecipe, objects: Sequence[str], measure: Measure) -> Table:
    """One measure of a recipe for some objects and its own seeds; NaN where there is none.

    Raises:
        ValueError: two runs with one seed left the same object out.
    """
    seeds, places = recipe.seeds, {name: place for place, name in enumerate(objects)}
    values = np.full((len(objects), len(seeds)), np.nan)
    folds: list[tuple[int | str, ...]] = [("none", place) for place in range(len(objects))]
    done: dict[tuple[str, int], str] = {}
    for run in recipe.runs:
        for name, result in run.objects.items():
            other = done.setdefault((name, run.settings.seed), run.folder.name)
            if other != run.folder.name:
                raise ValueError(
                    f"each object must be left out once with a seed; {name} was by {other} and {run.folder.name}: "
                    "name one of them alone"
                )
            value = getattr(result, measure.attribute)
            if value is not None:
                values[places[name], seeds.index(run.settings.seed)] = value
            folds[places[name]] = run.fold
    return Table(values, folds)


def make_fold_table(gathered: Gathered) -> str:
    """Compare recipes with the first one, object by object, as Markdown.

    Args:
        gathered: see :func:`matcaps.experiments.gather_folds`.
    """
    recipes = gathered.recipes
    parts = ["## Recipes on objects that they never trained on"]
    if not recipes:
        parts.append("No run is done yet.")
    else:
        objects = object_names(recipes)
        tables = {measure: [tabulate(recipe, objects, measure) for recipe in recipes] for measure in MEASURES}
        parts.append(_overview(recipes, tables))
        if len(recipes) > 1:
            parts += _comparisons(recipes, tables)
        parts.append(_noise(tables))
        parts.append(_by_object(recipes, objects, tables))
        parts.append(_how(recipes))
        parts += _notes(recipes)
    if gathered.unfinished:
        parts.append("\n".join(["Not done:\n", *(f"- {line}" for line in gathered.unfinished)]))
    return "\n\n".join(part for part in parts if part) + "\n"


_Tables = dict[Measure, list[Table]]


def _known(table: Table) -> Table | None:
    """The objects with a value; None if there are none."""
    return table.rows(table.known) if table.known.any() else None


def _overview(recipes: Sequence[FoldRecipe], tables: _Tables) -> str:
    lines = []
    for place, recipe in enumerate(recipes):
        cells = []
        for measure in MEASURES:
            table = _known(tables[measure][place])
            cells += ["–", "–"] if table is None else _with_interval(estimate(table), measure)
        lines.append(
            [
                _cell(recipe.name),
                *cells,
                str(len(recipe.objects)),
                ", ".join(map(str, recipe.seeds)),
                str(len(recipe.runs)),
                distinct(str(run.settings.epochs) for run in recipe.runs),
                distinct((run.commit or "–")[:7] for run in recipe.runs),
            ]
        )
    measured = [cell for measure in MEASURES for cell in (measure.title, "95 %")]
    return markdown(["recipe", *measured, "objects", "seeds", "runs", "epochs", "commit"], lines)


def _with_interval(interval: Estimate, measure: Measure, *, signed: bool = False) -> list[str]:
    style = f"{'+' if signed else ''}.{measure.digits}f"
    return [f"{interval.mean:{style}}", f"{interval.low:{style}} to {interval.high:{style}}"]


def _comparisons(recipes: Sequence[FoldRecipe], tables: _Tables) -> list[str]:
    first, *others = recipes
    lines, differing = [], []
    for place, recipe in enumerate(others, 1):
        differing.append(f"- {recipe.name}: {'; '.join(recipe_differences(first, recipe)) or 'no setting'}")
        comparisons: list[Comparison] = []
        for measure in MEASURES:
            own = (tables[measure][0], tables[measure][place])
            cells = ["no object in common" if measure is MEASURES[0] else "–", "", "", "", ""]
            if (own[0].known & own[1].known).any():
                comparison = compare(*own)
                comparisons.append(comparison)
                cells = [
                    *_with_interval(comparison.difference, measure, signed=True),
                    _p(comparison.p),
                    f"{comparison.num_better} : {comparison.num_worse}",
                    str(comparison.num_objects),
                ]
            lines.append([_cell(recipe.name), f"{measure.title.partition(',')[0]}, {measure.unit}", *cells])
        if len(comparisons) == len(MEASURES):
            lower = sum(comparison.difference.mean < 0 for comparison in comparisons)
            verdict = {
                0: "neither measure is lower",
                1: "one measure is lower, one is not",
                2: "both measures are lower",
            }
            differing[-1] += f"; {verdict[lower]} than of {first.name}"
    header = [
        f"recipe less {_cell(first.name)}",
        "measure",
        "difference",
        "95 %",
        "p",
        "lower : higher",
        "objects in common",
    ]
    intro = f"Against {first.name}, on the objects that both have; below 0 is better."
    return [
        intro,
        markdown(header, lines),
        "\n".join([f"Settings that differ from {first.name} (its, the other's):\n", *differing]),
    ]


def _cell(name: str) -> str:
    """A name made safe for a table's cell; groups may have any name."""
    return printable(name).replace("|", "\\|")


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _noise(tables: _Tables) -> str:
    sentences = []
    for measure, own in tables.items():
        noise = noise_floor(own)
        if noise is not None:
            sentences.append(
                f"of {measure.title.partition(',')[0]} {noise.of_mean:.{measure.digits}f} {measure.unit} in the mean "
                f"over {noise.num_objects} objects, {noise.of_object:.{measure.digits}f} on one object "
                f"(root mean square of {noise.num_pairs} pair{'s' if noise.num_pairs > 1 else ''})"
            )
    if not sentences:
        return "Noise floor: not known, for no recipe has two seeds on the same objects."
    return (
        f"Noise floor, how far two seeds of one recipe lie apart: {'; '.join(sentences)}. Between recipes with one "
        "seed each, a difference of that size in the mean says nothing, and less than twice of it little."
    )


def _by_object(recipes: Sequence[FoldRecipe], objects: Sequence[str], tables: _Tables) -> str:
    lines = []
    for place, name in enumerate(objects):
        cells = []
        for measure in MEASURES:
            for table in tables[measure]:
                values = table.values[place][~np.isnan(table.values[place])]
                cells.append(f"{values.mean():.{measure.digits}f}" if len(values) else "–")
        lines.append([_cell(name), *cells])
    header = [f"{measure.title}: {_cell(recipe.name)}" for measure in MEASURES for recipe in recipes]
    return markdown(["object", *header], lines)


def _how(recipes: Sequence[FoldRecipe]) -> str:
    one_seed = [recipe.name for recipe in recipes if len(recipe.seeds) == 1]
    text = (
        "Means are over objects, each counting alike, after the mean over its seeds. Intervals: bootstrap over objects "
        "and, for each fold, seeds, 10,000 resamples. p: two-sided sign-flip test over the objects, exact up to "
        f"{EXACT_OBJECTS} objects, 100,000 draws beyond. Objects of one fold share a network, which neither takes into "
        "account. Log-loss: nats, scores made probabilities with one exponent a run (matcaps.training.log_loss)."
    )
    if one_seed:
        text += f" One seed only, so that the interval has none of a seed's share: {', '.join(one_seed)}."
    return text


def _notes(recipes: Sequence[FoldRecipe]) -> list[str]:
    notes = list(dict.fromkeys(run.note for recipe in recipes for run in recipe.runs if run.note))
    several = [
        f"{recipe.name} has runs of several commits, which may compute other things with the same settings"
        for recipe in recipes
        if len({run.commit for run in recipe.runs}) > 1
    ]
    origins = sorted({run.origin for recipe in recipes for run in recipe.runs if run.origin})
    listed = "\n".join(f"- {note}" for note in [*several, *notes])
    return [listed, *(f"Data: {origin}." for origin in origins)]
