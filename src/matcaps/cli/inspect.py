"""``matcaps inspect``."""

from matcaps.cli.parsing import PLAIN, SOURCE, accept_train_names, make_parser, out
from matcaps.inspect.settings import InspectSettings


def inspect_command(arguments: list[str]) -> int:
    """Look inside a trained network: figures and their numbers."""
    parser = make_parser(
        "inspect",
        "Look inside a trained capsule network: on one image, and over a set of images. "
        "Writes figures as PNG and SVG, and the numbers of each as NPZ or JSON.",
    )
    parser.add_argument("source", metavar="run", type=str, help=SOURCE)
    parser.add_class_arguments(InspectSettings, skip={"source", "train_decoder"})
    parser.add_argument(
        "--train_decoder", action="store_true", help="train a decoder on the network's poses and save it beside it"
    )
    parsed = parser.parse_args(accept_train_names(arguments))
    settings = InspectSettings(**vars(parsed))

    from matcaps.inspect import inspect_saved

    result = inspect_saved(settings, lambda line: out.print(line, **PLAIN))
    out.print(f"written to {result.folder}: {'; '.join(result.files)}", **PLAIN)
    return 0
