"""From facts and figures to a page."""

from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from matcaps._version import __version__
from matcaps.inspect.confusion import ConfusionDisplay
from matcaps.inspect.curves import CurvesDisplay, HealthByEpochDisplay
from matcaps.inspect.mistakes import MistakesDisplay
from matcaps.inspect.views import VIEWS
from matcaps.report.agreement import agreement_sections
from matcaps.report.collect import RunFacts
from matcaps.report.parts import Picture, Section, data_url, picture
from matcaps.training.tested import describe_tested


def make_report(runs: Sequence[RunFacts], *, title: str | None = None) -> str:
    """Write one self-contained page of HTML about one run or several.

    Args:
        runs: see :func:`matcaps.report.collect_run`.
        title: of the page; by default the runs' names.

    Returns:
        The page: no script, no request to anywhere, readable on a phone, in dark and light, and on paper.

    Raises:
        ValueError: no runs.
    """
    if not runs:
        raise ValueError("runs must have at least one run")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("matcaps.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    names = _names(runs)
    comparison = []
    if len(runs) > 1:
        curves = CurvesDisplay({name: run.metrics for name, run in zip(names, runs, strict=True)})
        comparison.append(
            picture(curves, f"Loss and accuracy by epoch of {', '.join(names)}", "The runs' curves in one picture.")
        )
    return environment.from_string(template).render(
        title=title or f"matcaps: {', '.join(names)}",
        version=__version__,
        date=f"{datetime.now():%Y-%m-%d}",
        comparison=comparison,
        runs=[_run(name, run) for name, run in zip(names, runs, strict=True)],
    )


def _names(runs: Sequence[RunFacts]) -> list[str]:
    """The folders' own names, with a number where two are the same."""
    own = [run.name for run in runs]
    return [name if own.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(own, 1)]


def _run(name: str, run: RunFacts) -> dict[str, Any]:
    results = run.results
    test, seconds = results["test"], results["train_seconds"]
    machine = results["machine"]
    return {
        "name": name,
        "network": run.settings["model"]["preset"],
        "data": results["data"],
        "accuracy": "not tested" if test is None else f"{100 * test['accuracy']:.2f} %",
        "error": "–" if test is None else f"{test['error_percent']:.2f} %",
        "num_images": "" if test is None else f"{test['num_images']:,}",
        "log_loss": "" if test is None or test.get("log_loss") is None else f"{test['log_loss']:.3f}",
        "tested": _sentence(describe_tested(results)),
        "num_train_images": f"{results['num_train_images']:,}",
        "parameters": f"{results['num_parameters']:,}" if "num_parameters" in results else "–",
        "epochs": results["epochs"],
        "time": f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min",
        "machine": ", ".join(machine.get("gpus", [f"{machine['processor']}, threads: {machine['torch_threads']}"])),
        "origin": results["data_origin"][:1].upper() + results["data_origin"][1:],
        "command": results["command"],
        "seed": results["seed"],
        "commit": (results["commit"] or "not known")[:10],
        "settings": yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True),
        "sections": _sections(run),
    }


def _sections(run: RunFacts) -> list[Section]:
    test = run.results["test"]
    curves = [
        picture(CurvesDisplay({run.name: run.metrics}), "Loss and accuracy by epoch, on the parts that were looked at")
    ]
    health = HealthByEpochDisplay.from_metrics(run.metrics)
    if health is not None:
        curves.append(picture(health, "Mean activation and share of dead capsule types by epoch and layer"))
    return [
        Section("Training", _noticed(run.results), tuple(curves)),
        *agreement_sections(run),
        *([] if test is None else [_confusions(test)]),
        _mistakes(run),
        *_inspection(run),
    ]


def _confusions(test: dict[str, Any]) -> Section:
    """What was taken for what."""
    confusion = ConfusionDisplay(test["confusion"], test["classes"])
    said = confusion.sentences
    figure = picture(confusion, f"Confusion matrix: {said['rows']}")
    return Section("What it takes for what", f"{said['fewest']}. {_hardest_objects(test)}".strip(), (figure,))


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _noticed(results: dict[str, Any]) -> str:
    """What was out of the ordinary in the training, in words; empty if nothing was."""
    said = [
        f"Set up for {one['before']} epochs, it went on to {one['after']}." for one in results.get("extensions", [])
    ]
    return " ".join([*said, *(f"It seemed stuck: {one}." for one in results.get("warnings", []))])


def _hardest_objects(test: dict[str, Any], count: int = 3) -> str:
    """The objects that are most often wrong, in words; empty if it is not known which image shows which."""
    errors = sorted(
        (
            (-100 * (1 - accuracy), f"{name} {instance}")
            for instance, accuracies in test.get("class_accuracy_by", {}).get("instance", {}).items()
            for name, accuracy in zip(test["classes"], accuracies, strict=True)
            if accuracy is not None
        )
    )
    hardest = [(-error, name) for error, name in errors[:count] if error < 0]
    others = [-error for error, _ in errors[len(hardest) :]]
    if not hardest or not others:
        return ""
    named = ", ".join(f"{name} ({error:.1f} %)" for error, name in hardest)
    return f"By object, most are wrong of {named}; of all others {sum(others) / len(others):.1f} % on average."


def _inspection(run: RunFacts) -> list[Section]:
    if not run.inspected:
        return []
    pictures = tuple(
        Picture(data_url(run.inspected[name], "image/png"), f"{name.replace('_', ' ')}: {view.caption}", view.caption)
        for name, view in VIEWS.items()
        if name in run.inspected
    )
    said = " ".join(f"{name[:1].upper()}{name[1:]}: {sentence}." for name, sentence in run.findings.items())
    return [Section("Looking inside", said, pictures)]


def _mistakes(run: RunFacts) -> Section:
    title = "Worst mistakes"
    if not run.mistakes:
        return Section(title, run.note, ())
    display = MistakesDisplay(run.mistakes)
    return Section(title, "", (picture(display, f"Test images: {display.sentences['mistakes']}"),))
