"""The page's computations: read an image, decode a changed pose, attack an image."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS, as_capsules
from matcaps.data import Transform
from matcaps.data.devices import send
from matcaps.data.mnist import CLASSES
from matcaps.demo.examples import Examples, find_examples, pose_ranges
from matcaps.experiments.attacks import fgsm, input_bounds
from matcaps.inference.saved import SavedNetwork, open_saved
from matcaps.inspect import InspectSettings, VoteHistogram, vote_distances, vote_histogram
from matcaps.inspect.access import on_host
from matcaps.inspect.opening import find_decoder
from matcaps.models import EMCapsNet, PoseDecoder
from matcaps.models.decoder import load_decoder
from matcaps.models.modes import device_of
from matcaps.models.sources import DECODER_NAME
from matcaps.training.devices import place, resolve_device

LARGEST_EPSILON = 0.5
"""The end of the page's slider, in units of the network's input."""

_NUM_BINS = 24


@dataclass(frozen=True, eq=False)
class DemoNetwork:
    """A network to show, with its decoder and example images.

    Attributes:
        source: the folder or name that it was opened from.
        saved: the network and what was saved with it.
        network: in evaluation mode.
        transform: prepares images for it.
        decoder: from poses to images; None if there is none.
        decoder_note: if there is no decoder: where it was looked for, and how to get one.
        examples: images to choose from; None if there are none.
        ranges: ``[classes, 16, 2]``, of the pose's components on the examples; None without those.
    """

    source: str
    saved: SavedNetwork
    network: EMCapsNet
    transform: Transform
    decoder: PoseDecoder | None
    decoder_note: str
    examples: Examples | None
    ranges: Tensor | None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label."""
        return self.saved.classes

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return self.network.config.in_channels

    @property
    def reads_digits(self) -> bool:
        """Whether it was trained on images like MNIST's, so that pictures should be converted to that form."""
        return self.classes == CLASSES["mnist"] and self.channels == 1

    @property
    def iterations(self) -> int:
        """Routing iterations of the class capsules."""
        return self.network.class_capsules.routing.num_iterations

    @property
    def input_unit(self) -> str:
        """The unit of ε."""
        if self.transform.settings.normalise == "scale":
            return "of the range from black, 0, to white, 1"
        return "standard deviations of the image's pixels"


@dataclass(frozen=True, eq=False)
class Reading:
    """A network's results for one image; all tensors are on the CPU.

    Attributes:
        network: the network that read it.
        pixels: ``[1, C, S, S]``, uint8, as stored.
        image: ``[1, C, H, W]``, the network's input.
        low: ``[1, 1, 1, 1]``, the value of black in ``image``.
        high: ``[1, 1, 1, 1]``, the value of white.
        name: the image's name.
        truth: its label; None if it is unknown.
        activations: ``[classes]``, after the last iteration.
        poses: ``[1, classes, 4, 4]``.
        votes: histograms of the votes' distances for each class after each iteration.
    """

    network: EMCapsNet
    pixels: Tensor
    image: Tensor
    low: Tensor
    high: Tensor
    name: str
    truth: int | None
    activations: Tensor
    poses: Tensor
    votes: VoteHistogram

    @property
    def winner(self) -> int:
        """The most active class."""
        return int(self.activations.argmax())

    @property
    def pose(self) -> Tensor:
        """The winner's pose, ``[16]``."""
        return self.poses[0, self.winner].flatten()

    @cached_property
    def direction(self) -> Tensor:
        """The sign of every pixel's change in FGSM, ``[1, C, H, W]``, away from the winner; computed once.

        FGSM takes one step, so its direction is the same for every ε. For a pixel that could only leave the valid range
        it is 0.
        """
        full_range, device = float(self.high - self.low), device_of(self.network)
        moved = fgsm(
            self.network,
            send(self.image, device),
            torch.tensor([self.winner], device=device),
            full_range,
            (self.low, self.high),
            objective="logits",
        )
        return (moved.cpu() - self.image).sign()


@dataclass(frozen=True, eq=False)
class Attacked:
    """An image after FGSM.

    Attributes:
        epsilon: the largest change of a value.
        image: ``[1, C, H, W]``.
        change: ``[1, C, H, W]``, the change; smaller than ε where black or white was reached.
        activations: ``[classes]``.
    """

    epsilon: float
    image: Tensor
    change: Tensor
    activations: Tensor

    @property
    def winner(self) -> int:
        """The most active class after the attack."""
        return int(self.activations.argmax())


def open_demo(source: str, *, root: str | None = None, accelerator: str = "auto") -> DemoNetwork:
    """Open a network, its decoder and example images; takes seconds, because the range of poses is measured.

    Args:
        source: folder of a run or of saved weights, weights that come with matcaps, or an id on the Hugging Face hub.
        root: folder that holds the data sets.
        accelerator: where the network computes: "gpu" (CUDA), "cpu", or "auto" for the first where there is one.

    Raises:
        FileNotFoundError: the network is missing, or its run has not finished.
        ValueError: it has no capsules, its files are malformed, or there is no GPU.
    """
    resolve_device(accelerator)  # first: without the GPU asked for, nothing need be read
    saved = open_saved(source)
    network = saved.network
    if not isinstance(network, EMCapsNet):
        raise ValueError(f"{source} has no capsules to show: it is a {type(network).__name__}")
    transform, size = saved.transform, saved.transform.output_size
    decoder, note = None, f"There is no {DECODER_NAME} beside its weights: matcaps inspect {source} --train_decoder "
    path = find_decoder(InspectSettings(source), saved.folder)
    if path is not None:
        decoder = load_decoder(path, network.config.num_classes, (network.config.in_channels, size, size))
    place(network, accelerator)
    examples = find_examples(saved, root)
    return DemoNetwork(
        source=source,
        saved=saved,
        network=network,
        transform=transform,
        decoder=decoder,
        decoder_note="" if decoder is not None else note + "trains one on the network's training images.",
        examples=examples,
        ranges=None if examples is None else pose_ranges(network, transform, examples),
    )


@torch.no_grad()
def read(demo: DemoNetwork, pixels: Tensor, name: str, truth: int | None = None) -> Reading:
    """Compute a network's results for one image.

    Args:
        demo: the network.
        pixels: ``[1, C, S, S]``, uint8, S the side that its transform takes.
        name: the image's name.
        truth: its label, if it is known.

    Raises:
        ValueError: the shape or dtype does not fit.
    """
    image = demo.transform.evaluate(pixels)
    classes = as_capsules(on_host(demo.network(send(image, device_of(demo.network)))))
    low, high = input_bounds(demo.transform, pixels)
    return Reading(
        network=demo.network,
        pixels=pixels,
        image=image,
        low=low,
        high=high,
        name=name,
        truth=truth,
        activations=classes.activations[0],
        poses=classes.poses,
        votes=vote_histogram(vote_distances(demo.network, image), num_bins=_NUM_BINS),
    )


def pose_bounds(demo: DemoNetwork, reading: Reading) -> tuple[Tensor, Tensor]:
    """The range of each component of the winner's pose on its slider: lowest and highest value, each ``[16]``.

    It is the range on the examples, extended if necessary to include the image's own value; without examples, 1 on
    both sides of that value.
    """
    own = reading.pose
    if demo.ranges is None:
        return own - 1, own + 1
    low, high = demo.ranges[reading.winner].unbind(1)
    return torch.minimum(low, own), torch.maximum(high, own)


@torch.no_grad()
def reconstruct(demo: DemoNetwork, reading: Reading, pose: Tensor) -> Tensor:
    """Decode a changed pose of the winner.

    Args:
        demo: a network with a decoder.
        reading: of the image.
        pose: ``[16]``, in place of the winner's.

    Returns:
        ``[C, H, W]``, in units of the network's input.

    Raises:
        ValueError: there is no decoder, or the pose is not 16 finite numbers.
    """
    if demo.decoder is None:
        raise ValueError(demo.decoder_note)
    if list(pose.shape) != [POSE_COMPONENTS] or not torch.isfinite(pose).all():
        raise ValueError(f"pose must be {POSE_COMPONENTS} finite numbers; got {pose.tolist()}")
    poses = reading.poses.clone()
    poses[0, reading.winner] = pose.to(poses).view(poses.shape[2:])
    return demo.decoder(poses, torch.tensor([reading.winner]))[0]


@torch.no_grad()
def attack(reading: Reading, epsilon: float) -> Attacked:
    """Change an image by FGSM, away from the predicted class.

    Args:
        reading: of the image.
        epsilon: largest change of a value, from 0 to :data:`LARGEST_EPSILON`, in units of the network's input.

    Raises:
        ValueError: ε is out of range.
    """
    if not 0 <= epsilon <= LARGEST_EPSILON:
        raise ValueError(f"epsilon must be from 0 to {LARGEST_EPSILON}; got {epsilon}")
    if epsilon == 0:  # saves computing the gradient
        return Attacked(0.0, reading.image, torch.zeros_like(reading.image), reading.activations)
    image = (reading.image + epsilon * reading.direction).clamp(reading.low, reading.high)
    activations = reading.network(send(image, device_of(reading.network))).activations[0].cpu()
    return Attacked(epsilon, image, image - reading.image, activations)
