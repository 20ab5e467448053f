"""``matcaps export``."""

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from matcaps._progress import work
from matcaps.cli.parsing import CHECKPOINT, PLAIN, SOURCE, make_parser, out

if TYPE_CHECKING:
    from matcaps.models.export.writing import Exported


def export_command(arguments: list[str]) -> int:
    """Write a trained network to a file that runs without matcaps."""
    parser = make_parser(
        "export",
        "Write a trained network to a file that runs without matcaps: ONNX, for onnxruntime and browsers, or a program "
        "of torch.export, which torch alone loads. What it computes is compared with the network first. ONNX needs the "
        "extra matcaps[export].",
    )
    parser.add_argument("run", type=str, help=SOURCE)
    parser.add_argument("--output", type=str | None, help="the file, .onnx or .pt2; default: RUN's name, here")
    parser.add_argument(
        "--format", type=Literal["onnx", "torch"] | None, help="default: what the output ends in, or onnx"
    )
    parser.add_argument(
        "--trace",
        action="store_true",
        help="every iteration of each routed layer among the outputs: assignments, means, activations, the class votes",
    )
    parser.add_argument(
        "--precision",
        type=Literal["float32", "bfloat16", "int8"],
        default="float32",
        help="how weights are held: bfloat16: half the size; int8: a quarter, ONNX alone",
    )
    parser.add_argument("--one_image", action="store_true", help="take one image at a time, not batches of any size")
    parser.add_argument("--image_size", type=int | None, help="side in pixels; default: as the network was trained")
    parser.add_argument("--checkpoint", type=str | None, help=CHECKPOINT)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument("--json", action="store_true", help="print what the file says of itself as JSON instead")
    parsed = parser.parse_args(arguments)
    from matcaps.inference.exporting import export_saved

    is_torch = parsed.format == "torch" or (parsed.format is None and str(parsed.output).endswith(".pt2"))
    with _Stages(4 if is_torch or parsed.precision == "float32" else 5) as stages:
        stages.begin("opening the network")
        try:
            exported = export_saved(
                parsed.run,
                parsed.output,
                format=parsed.format,
                checkpoint=parsed.checkpoint,
                image_size=parsed.image_size,
                trace=parsed.trace,
                precision=parsed.precision,
                dynamic_batch=not parsed.one_image,
                overwrite=parsed.overwrite,
                progress=stages.begin,
            )
        except ImportError as error:
            raise ValueError(str(error)) from error
    if parsed.json:
        print(json.dumps(exported.description, indent=2))
    else:
        _print_exported(exported)
    return 0


class _Stages:
    """A bar of so many stages, with the name of the one that goes on. They take longer or shorter; most of the time
    is in the translation to ONNX."""

    def __init__(self, count: int):
        self._count = count
        self._begun = 0
        self._stage = ExitStack()

    def __enter__(self) -> "_Stages":
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.close()

    def begin(self, name: str) -> None:
        """The stage before is done, and this one goes on."""
        self._stage.close()
        self._stage.enter_context(work(name, self._count, self._begun))
        self._begun += 1


def _print_exported(exported: "Exported") -> None:
    description = exported.description
    shape = "×".join(map(str, description["input"]["shape"]))
    out.print(f"input {description['input']['name']}: {shape}, float32", **PLAIN)
    if "preparation" in description:
        out.print(f"  {description['preparation']['words']}", **PLAIN)
    for name, output in description["outputs"].items():
        out.print(f"output {name}: {'×'.join(map(str, output['shape']))}: {output['meaning']}", **PLAIN)
    kind = f"ONNX, opset {description['opset']}" if "opset" in description else "a program of torch.export"
    nodes = f", {exported.num_nodes} nodes" if exported.num_nodes is not None else ""
    if exported.difference is None:
        compared = "not compared with the network: pip install onnxruntime for that"
    else:
        compared = f"differs from the network by {exported.difference:.1g} at most on random images"
    out.print(f"{exported.path}: {kind}, {exported.size / 1e6:.2f} MB{nodes}; {compared}", **PLAIN)
