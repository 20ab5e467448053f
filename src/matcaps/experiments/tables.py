"""From the records of an experiment to Markdown: ours beside the paper's, and what has not been run."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from matcaps.experiments.plan import Experiment
from matcaps.experiments.records import TrialRecord
from matcaps.experiments.viewpoints import ViewpointErrors, match_familiar, read_curve

Group = list[TrialRecord]
"""Trials of one row with the same number of epochs, which differ in their seed."""


def make_table(experiment: Experiment, records: Sequence[TrialRecord]) -> str:
    """Write an experiment's records as Markdown: its title, its tables, its caveat.

    Args:
        experiment: which.
        records: see :func:`matcaps.experiments.gather`; rows without any are shown as not run yet.
    """
    parts = [f"## {experiment.title}", *_TABLES.get(experiment.name, _plain)(experiment, records)]
    origins = sorted({record.results["data_origin"] for record in records if "data_origin" in record.results})
    notes = [experiment.caveat, _departures(records), *(f"Data: {origin}." for origin in origins)]
    return "\n\n".join([*parts, *(note for note in notes if note)]) + "\n"


def _departures(records: Sequence[TrialRecord]) -> str:
    """Say which trainings had other settings than the rows have today: the rows stay, the recipes move on."""
    shown = [record for record in records if record.measured or record.row.trained_in is None]
    lines = [
        f"- {group[0].row.title}, {group[0].epochs} epochs: {'; '.join(differing)}"
        for group in groups(shown)
        if (differing := list(dict.fromkeys(one for record in group for one in record.differing)))
    ]
    return "\n".join(["Trained with other settings than the row's of today (then, today):\n", *lines]) if lines else ""


def groups(records: Iterable[TrialRecord]) -> list[Group]:
    """Trials by row and epochs, in the order they come in."""
    return [list(group) for _, group in groupby(records, key=lambda record: (record.row.name, record.epochs))]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``2.51`` or, of several, ``2.51 ± 0.12``: the mean and the standard deviation of the sample."""
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column stands left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(experiment: Experiment, records: Sequence[TrialRecord]) -> list[str]:
    return [_errors(experiment, records)]


def _errors(experiment: Experiment, records: Sequence[TrialRecord]) -> str:
    """The test errors, row by row."""

    def lines() -> Iterable[list[str]]:
        for row in experiment.rows:
            paper = dict(row.paper).get("test")
            start = [row.title, "–" if paper is None else f"{paper:.2f}"]
            own = [record for record in records if record.row.name == row.name]
            if not own:
                yield [*start, "not run yet", *[""] * 6]
            for group in groups(own):
                done = [record for record in group if record.state == "done"]
                yield [*start, _result(group), *_circumstances(done or group)]

    header = ["", "paper, %", "ours, %", "seeds", "epochs", "parameters", "hours", "processor", "commit"]
    return markdown(header, lines())


def _result(group: Group) -> str:
    done = _errors_of(group)
    diverged = sum(record.state == "diverged" for record in group)
    parts = [spread(done)] if done else []
    if diverged:
        parts.append("diverged" if diverged == 1 else f"{diverged} diverged")
    for record in group:
        if record.state == "unfinished":
            parts.append(f"seed {record.seed} after {len(record.metrics)} epochs")
    return "; ".join(parts)


def _circumstances(group: Group) -> list[str]:
    """Seeds, epochs, parameters, hours of one training, processor and commit."""
    done = [record.results for record in group if record.results]
    hours = [results["train_seconds"] / 3600 for results in done]
    return [
        ", ".join(str(record.seed) for record in group),
        str(group[0].epochs),
        distinct(f"{results['num_parameters']:,}" if "num_parameters" in results else "–" for results in done),
        f"{statistics.mean(hours):.2f}" if hours else "–",
        distinct(_processor(results["machine"]) for results in done),
        distinct((results["commit"] or "–")[:7] for results in done),
    ]


def _processor(machine: dict) -> str:
    return ", ".join(machine["gpus"]) if "gpus" in machine else machine["processor"]


def distinct(values: Iterable[str]) -> str:
    """Each value once, in order."""
    return ", ".join(dict.fromkeys(values)) or "–"


def viewpoint_matches(
    records: Sequence[TrialRecord],
) -> dict[tuple[str, int], dict[str, tuple[TrialRecord, ViewpointErrors]]]:
    """By angle and seed, where both networks are done: by network the record and the errors at matched familiar ones.

    Of a network trained for several numbers of epochs the longest training counts.
    """
    longest: dict[tuple[str, int], dict[str, TrialRecord]] = {}
    for record in records:  # by epochs, rising
        if record.state == "done":
            angle, network = record.row.name.split("-")
            longest.setdefault((angle, record.seed), {})[network] = record
    matches = {}
    for key, networks in longest.items():
        if len(networks) == 2:
            matched = match_familiar({name: read_curve(record.metrics) for name, record in networks.items()})
            matches[key] = {name: (networks[name], errors) for name, errors in matched.items()}
    return matches


def _viewpoints(experiment: Experiment, records: Sequence[TrialRecord]) -> list[str]:
    matches = viewpoint_matches(records)
    lines, sentences = [], []
    for row in experiment.rows:
        angle, network = row.name.split("-")
        paper = dict(row.paper)
        own = [curves[network] for (name, _), curves in sorted(matches.items()) if name == angle]
        start = [row.title, f"{paper['familiar_test']:.1f} → {paper['test']:.1f}"]
        if not own:
            lines.append([*start, _result([r for r in records if r.row.name == row.name]) or "not run yet", *[""] * 8])
            continue
        lines.append(
            [
                *start,
                f"{spread([errors.familiar for _, errors in own])} → {spread([errors.novel for _, errors in own])}",
                ", ".join(str(errors.epoch) for _, errors in own),
                spread([read_curve(record.metrics)[-1].novel for record, _ in own]),
                *_circumstances([record for record, _ in own]),
            ]
        )
    for angle in ("elevation", "azimuth"):
        own = [curves for (name, _), curves in sorted(matches.items()) if name == angle]
        if own:
            cnn, capsules = (statistics.mean(curves[name][1].novel for curves in own) for name in ("cnn", "capsules"))
            paper_cnn, paper_capsules = (
                dict(experiment.row(f"{angle}-{name}").paper)["test"] for name in ("cnn", "capsules")
            )
            sentences.append(
                f"Novel {angle}s: capsules make {abs(1 - capsules / cnn):.0%} "
                f"{'fewer' if capsules < cnn else 'more'} errors than the CNN, at matched error on familiar ones "
                f"({len(own)} seed{'s' if len(own) > 1 else ''}); in the paper "
                f"{1 - paper_capsules / paper_cnn:.0%} fewer."
            )
    header = [
        "error, %: familiar → novel viewpoints",
        "paper",
        "ours",
        "at epoch",
        "novel, at the end",
        "seeds",
        "epochs",
        "parameters",
        "hours",
        "processor",
        "commit",
    ]
    return [markdown(header, lines), *sentences]


def _mnist(experiment: Experiment, records: Sequence[TrialRecord]) -> list[str]:
    measured = groups(record for record in records if record.measured)
    parts = [_errors(experiment, records)]
    for kind, unit in (("rotation", "degrees"), ("shift", "pixels")):
        amounts = list(
            dict.fromkeys(entry[unit] for group in measured for entry in group[0].measured["distortions"][kind])
        )
        rows = [
            [
                f"{group[0].row.title}, {group[0].epochs} epochs",
                *(
                    spread(
                        [
                            entry["error_percent"]
                            for record in group
                            for entry in record.measured["distortions"][kind]
                            if entry[unit] == amount
                        ]
                    )
                    for amount in amounts
                ),
            ]
            for group in measured
        ]
        if rows:
            parts.append(markdown([f"error, %, by {kind} in {unit}", *(f"{amount:g}" for amount in amounts)], rows))
    return parts


ATTACKS = {"fgsm": "FGSM", "bim": "BIM"}
AIMS = {"untargeted": "accuracy, %", "targeted": "taken for the target, %"}
BOXES = {"white_box": "white box", "black_box": "made on the CNN"}
STRONG = {
    "fgsm": "FGSM, loss",
    "bim": "BIM, loss",
    "bim_logits": "BIM, logits",
    "pgd": "PGD, logits, restarts",
    "square": "Square attack, no gradient",
    "noise": "random noise (control)",
}


def attack_curve(group: Group, attack: str, aim: str, box: str) -> list[list[float]]:
    """In per cent, for each ε the values of a row's seeds; shares of some hundred images have no digits to give."""
    curves = [record.measured["attacks"]["networks"][record.row.name]["curves"][attack][aim][box] for record in group]
    return [[100 * value for value in values] for values in zip(*curves, strict=True)]


def _attacks(experiment: Experiment, records: Sequence[TrialRecord]) -> list[str]:
    measured = groups(record for record in records if record.measured)
    lines = []
    for row in experiment.rows:
        own = [group for group in measured if group[0].row.name == row.name]
        lines += [[row.title, spread(_errors_of(group)), *_circumstances(group)] for group in own]
        if not own:
            state = _result([record for record in records if record.row.name == row.name])
            lines.append([row.title, f"not attacked yet{f' (trained: {state})' if state else ''}", *[""] * 6])
    parts = [
        markdown(
            ["", "test error, %", "seeds", "epochs", "parameters", "hours of training", "processor", "commit"], lines
        )
    ]
    if not measured:
        return parts
    attacks = measured[0][0].measured["attacks"]
    epsilons = attacks["epsilon"]
    parts.append(
        f"{attacks['data']['num_images']} test images, evenly over the classes. ε is in units of {epsilons['unit']}, "
        f"one of which is {epsilons['grey_levels_per_unit']:.0f} of 255 grey levels on average."
    )
    for aim, what in AIMS.items():
        lines = []
        for attack, name in ATTACKS.items():
            for group in measured:
                for box, where in BOXES.items():
                    if box == "black_box" and group[0].row.name == attacks["source"]:
                        continue  # the same as its white box
                    values = [spread(one, 0) for one in attack_curve(group, attack, aim, box)]
                    lines.append([f"{name}, {aim}, {where}: {group[0].row.title}", *values])
        parts.append(markdown([f"{what}, by ε", *(f"{epsilon:g}" for epsilon in epsilons["values"])], lines))
    parts += [_strong(group) for group in measured]
    return parts


def _strong(group: Group) -> str:
    """What stronger attacks leave right, and what the checks for gradient masking say, of one row."""
    results = [record.measured["attacks"]["networks"][record.row.name] for record in group]
    strong = [one["strong"] for one in results]
    lines = [
        [
            name,
            *(
                spread([100 * one["accuracy"][attack][index] for one in strong], 0)
                for index in range(len(strong[0]["epsilons"]))
            ),
        ]
        for attack, name in STRONG.items()
    ]
    large = strong[0]["large_epsilon"]["epsilon"]
    left = spread([100 * one["large_epsilon"]["pgd"] for one in strong], 0)
    sentences = [f"PGD at ε {large:g} leaves {left} % right."]
    for name, check in results[0]["masking"].items():
        if check["sign_of_masking"]:
            sentences.append(f"A sign of masked gradients, {name}: {check['why']}.")
    if len(sentences) == 1:
        sentences.append("No check found a sign of masked gradients.")
    header = [
        f"{group[0].row.title}: accuracy, %, on {strong[0]['num_images']} images, by ε",
        *(f"{epsilon:g}" for epsilon in strong[0]["epsilons"]),
    ]
    return f"{markdown(header, lines)}\n\n{' '.join(sentences)}"


def _errors_of(group: Group) -> list[float]:
    return [record.error_percent for record in group if record.state == "done"]


_TABLES: dict[str, Callable[[Experiment, Sequence[TrialRecord]], list[str]]] = {
    "viewpoints": _viewpoints,
    "attacks": _attacks,
    "mnist": _mnist,
}
