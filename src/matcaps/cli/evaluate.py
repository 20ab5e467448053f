"""``matcaps eval`` and ``matcaps predict``."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from matcaps.cli.parsing import CHECKPOINT, PLAIN, SOURCE, as_train_names_them, err, make_parser, out
from matcaps.data.names import printable
from matcaps.data.settings import CROP_COUNTS

_NAMED = 10
"""Files that could not be read that are named; of more, the number."""

if TYPE_CHECKING:
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
        help="break the error down by an attribute: smallNORB has instance, elevation, azimuth and lighting",
    )
    parser.add_argument("--checkpoint", type=str | None, help=CHECKPOINT)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead")
    parsed = parser.parse_args(as_train_names_them(arguments))
    from matcaps.training.inference import evaluate_saved

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
    for name, found in result.class_accuracy_by.items():
        _print_errors_by(name, found, result.classes)
    out.print(
        f"accuracy {100 * result.accuracy:.2f} % (error {result.error_percent:.2f} %) on {result.num_images} images, "
        f"{result.num_images / result.seconds:.0f} images a second",
    )


def _print_errors_by(name: str, found: Mapping[int, tuple[float | None, ...]], classes: tuple[str, ...]) -> None:
    table = Table(title=f"errors, %, by {name} (-1: unknown)")
    for heading in (name, *map(printable, classes)):
        table.add_column(heading, justify="right")
    for value, accuracies in found.items():
        errors = ("–" if accuracy is None else f"{100 * (1 - accuracy):.1f}" for accuracy in accuracies)
        table.add_row(str(value), *errors)
    out.print(table)


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
    parser.add_argument("--json", action="store_true", help="print all classes' scores as JSON instead")
    parsed = parser.parse_args(arguments)
    from matcaps.training.prediction import predict_files

    found = predict_files(parsed.run, parsed.images, invert=parsed.invert, checkpoint=parsed.checkpoint)
    if parsed.json and found.scores:
        print(json.dumps(found.scores, indent=2))
    for path, scores in found.scores.items() if not parsed.json else ():
        best = sorted(scores.items(), key=lambda item: -item[1])[:3]
        out.print(f"{path}: " + ", ".join(f"{name} {score:.3f}" for name, score in best), **PLAIN)
    if found.failures:
        reasons = [*found.failures.values()]
        total = len(found.scores) + len(reasons)
        said = f"{len(reasons)} of {total} could not be classified: " if total > 1 else ""
        more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        err.print(f"matcaps predict: {said}{'; '.join(reasons[:_NAMED])}{more}", **PLAIN)
    return 1 if found.failures else 0
