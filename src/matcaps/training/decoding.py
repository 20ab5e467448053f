"""A decoder for a network that was trained without one: the decoder learns its poses, the network does not change."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from matcaps._progress import watched
from matcaps.data import DataBundle
from matcaps.data.devices import send
from matcaps.inspect.traversal import class_poses, explained_variance
from matcaps.losses import reconstruction_loss
from matcaps.models import EMCapsNet, PoseDecoder
from matcaps.models.decoder import load_decoder as load_decoder  # matcaps.training has it, too
from matcaps.models.modes import device_of


@dataclass(frozen=True, eq=False)
class DecoderTraining:
    """The result of :func:`train_decoder`.

    Attributes:
        decoder: in evaluation mode.
        losses: squared error summed over an image's pixels, mean over the training images, epoch by epoch.
        explained: share of the test images' variance about their mean image that the reconstructions explain, from
            the true class's pose; 0 is as good as the mean image.
        seconds: time it took.
    """

    decoder: PoseDecoder
    losses: tuple[float, ...]
    explained: float
    seconds: float


def train_decoder(
    network: EMCapsNet,
    bundle: DataBundle,
    *,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    hidden_units: tuple[int, int] = (512, 1024),
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> DecoderTraining:
    """Train a decoder on a frozen network's poses of the training images, prepared as in evaluation.

    The poses are computed once, so an epoch is a few hundred small steps: minutes for a whole data set.

    Args:
        network: not changed; the decoder is trained on its device, and returned on the CPU.
        bundle: its images: ``train`` for training, ``test`` for testing.
        epochs: times through the training images.
        batch_size: images in a step.
        learning_rate: of Adam at the start; falls linearly to 0.
        hidden_units: of the decoder; Sabour et al. (2017) have 512 and 1,024.
        seed: of the decoder's weights and the order of the images.
        report: called with one line per epoch.

    Raises:
        ValueError: a number is out of range.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    started = time.perf_counter()
    train, test, transform = bundle.train, bundle.test, bundle.transform
    device = device_of(network)
    poses = class_poses(network, train, transform).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = bundle.image_size
        decoder = PoseDecoder(len(bundle.classes), (bundle.num_channels, size, size), hidden_units).to(device)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=learning_rate, fused=True)
    steps = epochs * -(-len(train) // batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps + 1))
    losses: list[float] = []
    for epoch in watched(range(epochs), "decoder"):
        batch_losses: list[tuple[Tensor, int]] = []
        for chosen in torch.randperm(len(train), generator=order).split(batch_size):
            images, labels = transform.evaluate(send(train.images[chosen], device)), send(train.labels[chosen], device)
            loss = reconstruction_loss(decoder(poses[send(chosen, device)], labels), images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            batch_losses.append((loss.detach(), len(chosen)))
        losses.append(sum(float(one) * count for one, count in batch_losses) / len(train))
        report(f"decoder epoch {epoch + 1}/{epochs}  squared error per image {losses[-1]:.2f}")
    decoder.cpu().eval()
    explained = explained_variance(decoder, class_poses(network, test, transform), test, transform)
    return DecoderTraining(decoder, tuple(losses), explained, time.perf_counter() - started)
