"""``matcaps summary``, ``matcaps models`` and ``matcaps doctor``."""

from typing import Any

from rich.table import Table

from matcaps.cli.parsing import PLAIN, make_parser, out
from matcaps.models.presets import list_models


def summary_command(arguments: list[str]) -> int:
    """Print a network's layers, output shapes and parameters."""
    parser = make_parser("summary", "Print a network's layers, their output shapes and parameters.")
    parser.add_argument("preset", type=str, help=f"one of {', '.join(list_models())}")
    parser.add_argument("--in_channels", type=int | None, help="image channels; default: the preset's")
    parser.add_argument("--num_classes", type=int | None, help="classes; default: the preset's")
    parser.add_argument("--image_size", type=int | None, help="side in pixels; default 28 for one channel, else 32")
    parsed = parser.parse_args(arguments)
    from matcaps.models import BaselineCNNConfig, create_model, model_config, summarise

    config = model_config(parsed.preset)
    channels = config.in_channels if parsed.in_channels is None else parsed.in_channels
    size = parsed.image_size if parsed.image_size is not None else 28 if channels == 1 else 32
    changes: dict[str, Any] = {"image_size": (size, size)} if isinstance(config, BaselineCNNConfig) else {}
    network = create_model(parsed.preset, in_channels=channels, num_classes=parsed.num_classes, **changes)
    rows = summarise(network, (size, size))
    table = Table(title=f"{parsed.preset} on {channels}×{size}×{size}")
    table.add_column("layer")
    table.add_column("output: poses, activations" if len(rows[-1].shapes) > 1 else "output")
    table.add_column("parameters", justify="right")
    for row in rows:
        shapes = ", ".join("×".join(map(str, shape)) for shape in row.shapes)
        table.add_row(row.name, shapes, f"{row.num_parameters:,}" if row.num_parameters else "")
    table.add_section()
    table.add_row("all", "", f"{sum(row.num_parameters for row in rows):,}")
    out.print(table)
    return 0


def models_command(arguments: list[str]) -> int:
    """List the networks that "summary" and "train" know."""
    make_parser("models", "List the presets.").parse_args(arguments)
    out.print("\n".join(list_models()))
    return 0


def doctor_command(arguments: list[str]) -> int:
    """Say what this installation has, and what it lacks."""
    parser = make_parser("doctor", "Say what this installation has, and what it lacks.")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parsed = parser.parse_args(arguments)
    from matcaps.cli.doctor import examine

    for name, finding in examine(parsed.root).items():
        out.print(f"{name:<16} {finding}", **PLAIN)
    return 0
