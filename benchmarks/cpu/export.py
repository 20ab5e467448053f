"""Export every preset and the weights that come with matcaps to ONNX; compare and time them in onnxruntime, one thread.

    .venv/bin/python -m benchmarks.cpu.export [NAMES]

Writes a record to benchmarks/results and prints it as a table. Presets are calibrated on random images, as an untrained
network's outputs are near constant. Seconds are the processor's, so that others on the machine count little.
"""

import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import matcaps
from matcaps.models import EMCapsNet
from matcaps.models.export import onnx_file
from matcaps.models.export.comparison import difference
from matcaps.models.export.graph import expected_outputs
from matcaps.models.export.writing import export_network

RESULTS = Path(__file__).resolve().parents[1] / "results"
BATCHES = (1, 7, 64)


def network_of(name: str) -> nn.Module:
    """A preset, calibrated, or weights that come with matcaps; in evaluation mode."""
    if name in matcaps.models.list_pretrained():
        return matcaps.from_pretrained(name)
    torch.manual_seed(0)
    network = matcaps.create_model(name)
    if isinstance(network, EMCapsNet) and network.config.calibration != "none":
        network.calibrate(images_for(network, 16))
    return network.eval()


def images_for(network: Any, count: int) -> Tensor:
    """Random images of the size that the exported network takes."""
    channels = network.config.in_channels
    size = 28 if channels == 1 else 32
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(count))


def timed(compute: Callable[[Tensor], Any], images: Tensor) -> tuple[Any, float]:
    """What it computes, and images a second of this thread's time."""
    start = time.thread_time()
    result = compute(images)
    return result, len(images) / (time.thread_time() - start)


@torch.no_grad()
def measure(name: str, *, trace: bool) -> dict[str, Any]:
    """One line of the table."""
    network = network_of(name)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        exported = export_network(network, "onnx", Path(folder) / "network.onnx", trace=trace)
        seconds = time.process_time() - start
        reader = onnx_file.reader(exported.path.read_bytes())
    assert reader is not None
    differences, speeds, own_speeds = {}, {}, {}
    for count in BATCHES:
        images = images_for(network, count)
        found, speeds[count] = timed(reader, images)
        _, own_speeds[count] = timed(network, images)
        differences[count] = difference(found, expected_outputs(network, images, trace=trace))
    return {
        "name": name,
        "trace": trace,
        "seconds": seconds,
        "nodes": exported.num_nodes,
        "bytes": exported.size,
        "difference": differences,
        "onnxruntime_images_a_second": speeds,
        "network_images_a_second": own_speeds,
    }


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    import onnxruntime

    rows = []
    for name in names or [*matcaps.list_models(), *matcaps.models.list_pretrained()]:
        for trace in (False, True):
            if trace and name == "baseline-cnn":
                continue
            row = measure(name, trace=trace)
            rows.append(row)
            apart = " | ".join(f"{row['difference'][count]:.1e}" for count in BATCHES)
            print(
                f"| {name}{', trace' if trace else ''} | {row['seconds']:.1f} | {row['nodes']} | "
                f"{row['bytes'] / 1e6:.2f} | {apart} | {row['onnxruntime_images_a_second'][7]:.0f} | "
                f"{row['network_images_a_second'][7]:.0f} |",
                flush=True,
            )
    now = datetime.now(UTC)
    record = {
        "command": "python -m benchmarks.cpu.export " + " ".join(names),
        "finished": now.isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "versions": {
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "matcaps": matcaps.__version__,
        },
        "threads": 1,
        "rows": rows,
    }
    path = RESULTS / f"export-{now:%Y-%m-%dT%H%M%SZ}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
