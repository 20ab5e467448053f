"""``matcaps eval`` and ``matcaps predict``."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from matcaps.cli.parsing import (
    CHECKPOINT,
    PLAIN,
    SOURCE,
    add_accelerator,
    as_train_names_them,
    err,
    make_parser,
    out,
)
from matcaps.data.names import printable
from matcaps.data.settings import CROP_COUNTS

_NAMED = 10
"""Files that could not be read that are named; of more, the number."""

if TYPE_CHECKING:
    from matcaps.inspect.agreement import RoutingAgreement
    from matcaps.training.evaluation import Evaluation


def eval_command(arguments: list[str]) -> int:
    """Test a trained network on labelled images."""
    parser = make_parser("eval", "Test a trained network on labelled images.")
    parser.add_argument("run", type=str, help=SOURCE)
    parser.add_argument("--data", type=str | None, help="data set to test on; default: the one it was trained on")
    parser.add_argument(
        "--folder",
        type=str | None,
        help="a folder of images to test on, a folder a class; without a test part a fifth tests: see --part all",
    )
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parser.add_argument(
        "--part", type=str, default="test", help="test, validation, familiar_test or train; all: every image"
    )
    parser.add_argument("--crops", type=int | None, help=f"crops of each image to average: one of {CROP_COUNTS}")
    parser.add_argument("--batch_size", type=int, default=200, help="images at a time")
    parser.add_argument(
        "--by",
        type=str | None,
        help="break the error down by an attribute: smallNORB has instance, elevation, azimuth and lighting; a split "
        "by groups has group",
    )
    parser.add_argument(
        "--agreement",
        action="store_true",
        help="say what routing does for the true class, too: its share of the data, whether its votes come together",
    )
    parser.add_argument("--checkpoint", type=str | None, help=CHECKPOINT)
    add_accelerator(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead")
    parsed = parser.parse_args(as_train_names_them(arguments))
    from matcaps.inference.saved import evaluate_saved

    result = evaluate_saved(
        parsed.run,
        data=parsed.data,
        folder=parsed.folder,
        root=parsed.root,
        part=parsed.part,
        num_crops=parsed.crops,
        batch_size=parsed.batch_size,
        by=parsed.by or (),
        checkpoint=parsed.checkpoint,
        agreement=parsed.agreement,
        accelerator=parsed.accelerator,
    )
    if parsed.json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        _print_evaluation(result)
    return 0


def _print_evaluation(result: "Evaluation") -> None:
    table = Table(title="confusion: rows are the true classes, columns the predicted ones")
    table.add_column("")
    for label in range(len(result.classes)):
        table.add_column(str(label), justify="right")
    table.add_column("accuracy", justify="right")
    for label, (name, counts, accuracy) in enumerate(
        zip(result.classes, result.confusion, result.class_accuracy, strict=True)
    ):
        share = "–" if accuracy is None else f"{100 * accuracy:.2f} %"
        table.add_row(f"{label} {printable(name)}", *(str(count) if count else "·" for count in counts), share)
    out.print(table)
    for name, accuracies in result.class_accuracy_by.items():
        _print_errors_by(name, accuracies, result.classes, result.value_names.get(name, {}))
    if result.agreement is not None:
        _print_agreement(result.agreement)
    if result.log_loss is not None:
        out.print(f"log-loss {result.log_loss:.3f}")
    out.print(
        f"accuracy {100 * result.accuracy:.2f} % (error {result.error_percent:.2f} %) on {result.num_images} images, "
        f"{result.num_images / result.seconds:.0f} images a second",
    )


def _print_errors_by(
    name: str,
    accuracies_by_value: Mapping[int, tuple[float | None, ...]],
    classes: tuple[str, ...],
    names: Mapping[int, str],
) -> None:
    table = Table(title=f"errors, %, by {name}{'' if names else ' (-1: unknown)'}")
    for heading in (name, *map(printable, classes)):
        table.add_column(heading, justify="right")
    for value, accuracies in accuracies_by_value.items():
        errors = ("–" if accuracy is None else f"{100 * (1 - accuracy):.1f}" for accuracy in accuracies)
        table.add_row(printable(names.get(value, str(value))), *errors)
    out.print(table)


def _print_agreement(measured: "RoutingAgreement") -> None:
    iterations = range(len(measured.share_true))
    table = Table(title="what routing does for the true class, by iteration")
    table.add_column("")
    for iteration in iterations:
        table.add_column(str(iteration + 1), justify="right")
    shares = {
        f"its share of the data, % (chance {100 * measured.chance:.0f})": measured.share_true,
        "its votes are the nearest to their mean, % of images": measured.nearest_is_true,
        "right, were this the last, % of images": measured.accuracy,
        "other answer than an iteration before, % of images": measured.changed,
    }
    numbers = {
        "mean ln σ of its votes": measured.log_deviation_true,
        "of the others'": measured.log_deviation_others,
        "the difference": measured.log_deviation_gap,
        "its activation": measured.activation_true,
        "the others'": measured.activation_others,
    }
    for name, values in shares.items():
        table.add_row(name, *(f"{100 * value:.1f}" for value in values))
    for name, values in numbers.items():
        table.add_row(name, *(f"{value:.3f}" for value in values))
    out.print(table)
    layers = Table(title="how active each layer is")
    for heading in ("", "mean activation", "below 0.01, %", "above 0.99, %", "dead types"):
        layers.add_column(heading, justify="right" if heading else "left")
    for name, layer in measured.layers.items():
        shares_of = (f"{100 * share:.1f}" for share in (layer.share_low, layer.share_high))
        layers.add_row(name, f"{layer.mean:.3f}", *shares_of, str(layer.dead_types))
    out.print(layers)
    from matcaps.inspect.agreement import agreement_in_words

    out.print(". ".join(agreement_in_words(measured)) + ".", **PLAIN)


def predict_command(arguments: list[str]) -> int:
    """Classify image files with a trained network."""
    parser = make_parser(
        "predict",
        "Classify image files; prints the three most active classes of each. What cannot be read is passed over, and "
        "said at the end with status 1.",
    )
    parser.add_argument("run", type=str, help=SOURCE)
    parser.add_argument("images", type=str, nargs="+", help="image files, folders of them, or patterns: 'a/**/*.png'")
    parser.add_argument("--invert", action="store_true", help="exchange black and white: for ink on paper, say")
    parser.add_argument("--checkpoint", type=str | None, help=CHECKPOINT)
    add_accelerator(parser)
    parser.add_argument("--json", action="store_true", help="print all classes' scores as JSON instead")
    parsed = parser.parse_args(arguments)
    from matcaps.inference.prediction import predict_files

    predictions = predict_files(
        parsed.run,
        parsed.images,
        invert=parsed.invert,
        checkpoint=parsed.checkpoint,
        accelerator=parsed.accelerator,
    )
    if parsed.json and predictions.scores:
        print(json.dumps(predictions.scores, indent=2))
    for path, scores in predictions.scores.items() if not parsed.json else ():
        best = sorted(scores.items(), key=lambda item: -item[1])[:3]
        out.print(f"{path}: " + ", ".join(f"{name} {score:.3f}" for name, score in best), **PLAIN)
    if predictions.failures:
        reasons = [*predictions.failures.values()]
        total = len(predictions.scores) + len(reasons)
        said = f"{len(reasons)} of {total} could not be classified: " if total > 1 else ""
        more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        err.print(f"matcaps predict: {said}{'; '.join(reasons[:_NAMED])}{more}", **PLAIN)
    return 1 if predictions.failures else 0
