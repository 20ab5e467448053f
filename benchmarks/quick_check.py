"""Compares the GPU path with the float64 reference once, for machines without pytest; exit status 1 if it is off."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cases import Layer
from matcaps.routing import conv_em_routing

BAND = 4e-6


def main() -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shares = []
    for competition in ("child", "window"):
        inputs = Layer("check", 3, 5, batch=2, size=5).inputs()
        exact, own, ours = (
            gradients(inputs, name, dtype, device, competition)
            for name, dtype in (("reference", torch.float64), ("reference", torch.float32), ("triton", torch.float32))
        )
        for truth, plain, found in zip(exact, own, ours, strict=True):
            scale = truth.abs().max() + 1e-30
            error, allowed = ((x.double() - truth).square().mean().sqrt() / scale for x in (found, plain))
            shares.append(error / (2 * allowed + BAND))
    worst = torch.stack(shares).max().item()  # NaN where one is, which is no share of what is allowed either
    print(f"largest error, as a share of what is allowed: {worst:.2f}")
    return 0 if worst <= 1 else 1


def gradients(inputs, implementation, dtype, device, competition):
    """Results and gradients of one routing."""
    inputs = [tensor.detach().to(device, dtype).requires_grad_() for tensor in inputs]
    parents = conv_em_routing(
        *inputs, stride=2, inverse_temperature=[0.02, 0.03, 0.05], competition=competition, annealing=1 / 16,
        implementation=implementation,
    )  # fmt: skip
    total = parents.poses.square().sum() + parents.activations.sum()
    return [*(part.detach() for part in parents), *torch.autograd.grad(total, inputs)]


if __name__ == "__main__":
    sys.exit(main())
