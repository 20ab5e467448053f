"""How long a process takes to its first training step: ``python -m benchmarks.gpu.first_step paper-small``.

Prints JSON: seconds of importing matcaps and torch, of waking the device, and of the first step with all that comes
before it (the network made and calibrated, kernels compiled or read from the cache), and of a second step.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only


def main() -> None:
    preset, device = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else "cuda")
    start = time.perf_counter()
    import torch

    import matcaps
    from matcaps.losses import spread_loss

    imported = time.perf_counter()
    a = torch.randn(256, 256, device=device)
    (a @ a).sum().item()
    awake = time.perf_counter()
    torch.manual_seed(0)
    network = matcaps.create_model(preset).to(device)
    config = network.config  # type: ignore[union-attr]
    size = 28 if config.in_channels == 1 else 32  # type: ignore[union-attr]
    images = torch.randn(128 if device == "cuda" else 2, config.in_channels, size, size, device=device)  # type: ignore
    labels = torch.randint(config.num_classes, (len(images),), device=device)  # type: ignore
    network.calibrate(images)  # type: ignore[operator]
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> float:
        optimizer.zero_grad()
        loss = spread_loss(network(images).activations, labels, margin=0.2)
        loss.backward()
        optimizer.step()
        return loss.item()

    step()
    first = time.perf_counter()
    step()
    seconds = {"import": imported - start, "wake": awake - imported, "first_step": first - awake}
    print(json.dumps({"preset": preset, **seconds, "second_step": time.perf_counter() - first}))


if __name__ == "__main__":
    main()
