"""Convert stored images to the network's input: whole batches at once, each image by its own key.

Everything but the affine warp comes down to cutting a window out of a uint8 image and multiplying and shifting it.
The factor and the shift follow from exact integer sums in float64, so an image's result does not depend, not even in
its last bit, on the images beside it.

Random numbers are drawn on the CPU, one small table per batch, and sent to the images' device; all the rest is done
there, on a GPU without waiting for it. Without a warp a GPU's images are the CPU's, bit for bit; with one they agree to
rounding.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from matcaps.data.devices import send
from matcaps.data.random import Keys, integers, make_keys, uniform, uniform_between
from matcaps.data.settings import TransformSettings

# Which of a key's numbers is for what. One use never changes the numbers of another.
_TOP, _LEFT, _DOWN, _RIGHT, _BRIGHTNESS, _CONTRAST, _FLIP, _ROTATION, _SCALE, _SHEAR = range(10)
_ELASTIC_POINTS = 4  # along each side
_ELASTIC = np.arange(64, 64 + 2 * _ELASTIC_POINTS**2)

# Where the crops lie between the top left (0) and the bottom right (1).
_CENTRE = [(0.5, 0.5)]
_CORNERS = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
_EDGES = [(0.0, 0.5), (0.5, 0.0), (0.5, 1.0), (1.0, 0.5)]
_BETWEEN = [(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]


def crop_places(count: int, room: int) -> list[tuple[int, int]]:
    """The top left corners of the crops of an evaluation, the centre first.

    Args:
        count: 1, 5, 9 or 13.
        room: rows, and columns, by which the image exceeds the crop.
    """
    places = (_CENTRE + _CORNERS + _EDGES + _BETWEEN)[:count]
    # Half up, as the centre crop of an odd room; Python would round halves to even.
    return [(math.floor(top * room + 0.5), math.floor(left * room + 0.5)) for top, left in places]


def _windows(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Cut one square out of each image: ``[B, C, H, W]`` to ``[B, C, size, size]``."""
    views = images.unfold(2, size, 1).unfold(3, size, 1)
    batch = torch.arange(len(images), device=images.device)
    return views[batch, :, top, left]


def _channel_sums(images: Tensor) -> tuple[Tensor, Tensor]:
    """Sums, and sums of squares, over each channel: ``[B, C]``, float64; exact for uint8."""
    values = images.flatten(2).to(torch.float64)
    return values.sum(2), (values * values).sum(2)


def _divide(values: Tensor, number: float) -> Tensor:
    """Divide values by a number with one rounding: on a GPU torch would multiply by the inverse of a Python number."""
    return values / values.new_full((), number)


def _mean_and_deviation(first: Tensor, second: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over pixels and channels, ``[B, 1]``, from sums ``[B, C]`` of first and second
    powers. A deviation is never below 1 over the root of their number, so that a blank image comes out as zeros."""
    count = pixels * first.shape[1]
    mean = _divide(_sum_over_channels(first), count)
    variance = (_divide(_sum_over_channels(second), count) - mean * mean).clamp_min(0)
    return mean, variance.sqrt().clamp_min(1 / math.sqrt(count))


def _sum_over_channels(values: Tensor) -> Tensor:
    """The sum over the second dimension, which is kept; added in the same order on every device."""
    total = values[:, :1]
    for channel in range(1, values.shape[1]):
        total = total + values[:, channel : channel + 1]
    return total


class _Variation(NamedTuple):
    """What is drawn for a batch, on the images' device.

    Attributes:
        flipped: ``[B]``, bool; None: none are.
        affine: ``[B, 2, 3]``, float32, where each output pixel comes from; None: no warp.
        moved: ``[B, 2, points, points]``, float32, how far the points of a grid move; None: not elastic.
        top: ``[B]``, int64, rows at which the windows begin, counted from the margin's edge.
        left: ``[B]``, int64, columns.
        contrast: ``[B, 1]``, float64, factors.
        shift: ``[B, 1]``, float64, brightness to add.
        is_neutral: whether each contrast is 1.
    """

    flipped: Tensor | None
    affine: Tensor | None
    moved: Tensor | None
    top: Tensor
    left: Tensor
    contrast: Tensor
    shift: Tensor
    is_neutral: bool


class Transform:
    """Prepares stored images for the network, in training and in evaluation.

    Args:
        settings: resolved settings (:meth:`TransformSettings.resolve`).
        image_size: side of the stored images, in pixels.

    Raises:
        ValueError: a setting is None, or the crop is larger than the image.
    """

    def __init__(self, settings: TransformSettings, image_size: int) -> None:
        if not settings.is_resolved:
            raise ValueError("settings must be resolved, with no None left: call settings.resolve(name) first")
        if image_size < 1:
            raise ValueError(f"image_size must be 1 or more; got {image_size}")
        if settings.crop and settings.crop > image_size:
            raise ValueError(
                f"crop must be at most the image's side of {image_size} pixels; got {settings.crop}: "
                "make the crop smaller, or 0 for the whole image"
            )
        self.settings = settings
        self.image_size = image_size

    # The settings are resolved, so these are never None.
    def _number(self, name: str) -> Any:
        return getattr(self.settings, name)

    @property
    def output_size(self) -> int:
        """Side of the network's input, in pixels."""
        return self._number("crop") or self.image_size

    @property
    def num_test_crops(self) -> int:
        """Crops of each image in :meth:`evaluate_crops`."""
        return self._number("num_test_crops")

    def to_dict(self) -> dict[str, Any]:
        """The settings and the size as plain values, to be stored beside the weights."""
        return {"image_size": self.image_size, **asdict(self.settings)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Transform":
        """The transform that :meth:`to_dict` described.

        Raises:
            ValueError: a value is missing, unknown or out of range.
        """
        values = dict(values)
        try:
            image_size = values.pop("image_size")
            return cls(TransformSettings(**values), image_size)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the description of a transform: {error}: use what Transform.to_dict gave") from None

    def train(self, images: Tensor, indices: object, *, seed: int, epoch: int) -> Tensor:
        """Augmented images: a function of each image, its index, the seed and the epoch, and of nothing else.

        Args:
            images: ``[B, C, H, W]``, uint8, H and W equal to ``image_size``; on any device.
            indices: ``[B]`` integers that identify the images, on the host.
            seed: the run's seed.
            epoch: the epoch, from 0.

        Returns:
            ``[B, C, output_size, output_size]``, float32, on the images' device.

        Raises:
            ValueError: the images have another shape or dtype.
        """
        self._check(images)
        drawn = self._draw(make_keys(seed, epoch, indices), images.device)
        if drawn.flipped is not None:
            images = torch.where(drawn.flipped[:, None, None, None], images.flip(3), images)
        images = self._warp(images, drawn)
        crops = _windows(self._with_margin(images), drawn.top, drawn.left, self.output_size)
        varied = self._factor_and_offset(images, crops, drawn.contrast, drawn.shift, is_neutral=drawn.is_neutral)
        return _scaled(crops, *varied)

    def evaluate(self, images: Tensor) -> Tensor:
        """Images without augmentation, cropped at the centre.

        Args:
            images: ``[B, C, H, W]``, uint8, H and W equal to ``image_size``.

        Returns:
            ``[B, C, output_size, output_size]``, float32.

        Raises:
            ValueError: the images have another shape or dtype.
        """
        return self._crops(images, 1)[:, 0]

    def evaluate_crops(self, images: Tensor) -> Tensor:
        """Several crops of each image, whose outputs are to be averaged.

        Args:
            images: ``[B, C, H, W]``, uint8, H and W equal to ``image_size``.

        Returns:
            ``[B, num_test_crops, C, output_size, output_size]``, float32; the centre crop comes first.

        Raises:
            ValueError: the images have another shape or dtype.
        """
        return self._crops(images, self.num_test_crops)

    def bounds(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What black and white come to in :meth:`evaluate`: between them lies every input that an image could give.

        Where images are normalised one by one, so are these: the mean and deviation are those of the image as it is
        stored, and stay so if its pixels are then changed.

        Args:
            images: ``[B, C, H, W]``, uint8, H and W equal to ``image_size``.

        Returns:
            The input of grey level 0 and of grey level 255, each ``[B, 1, 1, 1]``, float32.

        Raises:
            ValueError: the images have another shape or dtype.
        """
        self._check(images)
        [(top, left)] = crop_places(1, self.image_size - self.output_size)
        crops = images[:, :, top : top + self.output_size, left : left + self.output_size]
        # Without augmentation all channels have one factor and one offset, so the first speaks for all.
        factor, offset = (value[:, :1] for value in self._plain_factor_and_offset(images, crops))
        return offset.clone(), factor.mul(255).add_(offset)

    def _check(self, images: Tensor) -> None:
        size = self.image_size
        if images.ndim != 4 or images.shape[2:] != (size, size) or images.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 [B, C, {size}, {size}]; got {images.dtype} {list(images.shape)}: "
                "resize them to the size that the transform was made for"
            )

    def _crops(self, images: Tensor, count: int) -> Tensor:
        self._check(images)
        size = self.output_size
        crops = [
            images[:, :, top : top + size, left : left + size]
            for top, left in crop_places(count, self.image_size - size)
        ]
        return torch.stack([_scaled(crop, *self._plain_factor_and_offset(images, crop)) for crop in crops], 1)

    def _draw(self, keys: Keys, device: torch.device) -> _Variation:
        """Draw all that is random in a batch, and send it to a device in one piece."""
        room, margin = self.image_size - self.output_size, self._number("max_shift")
        reach = math.floor(room * self._number("crop_jitter") + 0.5)
        [(first, _)] = crop_places(1, room - reach)
        top = first + integers(keys, _TOP, reach + 1)
        left = first + integers(keys, _LEFT, reach + 1)
        if margin:
            top += integers(keys, _DOWN, 2 * margin + 1)
            left += integers(keys, _RIGHT, 2 * margin + 1)
        brightness = self._number("max_brightness")
        contrast = uniform_between(keys, _CONTRAST, self._number("min_contrast"), self._number("max_contrast"))
        columns = {
            "top": top,
            "left": left,
            "contrast": contrast,
            "shift": uniform_between(keys, _BRIGHTNESS, -brightness, brightness),
            "flipped": uniform(keys, _FLIP) < 0.5 if self._number("flip") else None,
            "affine": self._affine(keys),
            "moved": self._moved(keys),
        }
        tables = {name: values.reshape(len(keys), -1) for name, values in columns.items() if values is not None}
        sent = send(torch.from_numpy(np.concatenate([*tables.values()], axis=1, dtype=np.float64)), device)
        parts = dict(zip(tables, sent.split([table.shape[1] for table in tables.values()], dim=1), strict=True))
        affine, moved = parts.get("affine"), parts.get("moved")
        return _Variation(
            flipped=parts["flipped"][:, 0] != 0 if "flipped" in parts else None,
            affine=None if affine is None else affine.reshape(-1, 2, 3).to(torch.float32),
            moved=None if moved is None else moved.reshape(-1, 2, _ELASTIC_POINTS, _ELASTIC_POINTS).to(torch.float32),
            top=parts["top"][:, 0].to(torch.int64),
            left=parts["left"][:, 0].to(torch.int64),
            contrast=parts["contrast"],
            shift=parts["shift"],
            is_neutral=bool(np.all(contrast == 1)),
        )

    def _affine(self, keys: Keys) -> np.ndarray | None:
        """Rotation, scale and shear about the centre, ``[B, 2, 3]``: where each output pixel comes from."""
        rotation, scale, shear, elastic = (
            self._number(name) for name in ("max_rotation", "max_scale", "max_shear", "max_elastic")
        )
        if not (rotation or scale or shear or elastic):
            return None
        angle = np.radians(uniform_between(keys, _ROTATION, -rotation, rotation))
        # The grid says where each output pixel comes from, so a larger picture needs a smaller step.
        step = 1 / uniform_between(keys, _SCALE, 1 - scale, 1 + scale)
        slant = np.tan(np.radians(uniform_between(keys, _SHEAR, -shear, shear)))
        cosine, sine, zero = np.cos(angle) * step, np.sin(angle) * step, np.zeros_like(step)
        rows = [[cosine, slant * cosine - sine, zero], [sine, slant * sine + cosine, zero]]
        return np.array(rows).transpose(2, 0, 1)

    def _moved(self, keys: Keys) -> np.ndarray | None:
        """How far the points of an elastic grid move, in halves of a side."""
        elastic = self._number("max_elastic")
        if not elastic:
            return None
        return (2 * uniform(keys[:, None], _ELASTIC) - 1) * (2 * elastic / self.image_size)

    def _with_margin(self, images: Tensor) -> Tensor:
        """The images with a margin for the shift, from which windows are cut."""
        margin = self._number("max_shift")
        if not margin:
            return images
        if self._number("fill") == "zero":
            return F.pad(images, (margin,) * 4)
        near = torch.arange(-margin, self.image_size + margin, device=images.device).clamp_(0, self.image_size - 1)
        return images[:, :, near][:, :, :, near]

    def _warp(self, images: Tensor, drawn: _Variation) -> Tensor:
        """Rotate, scale and shear about the centre, and deform; float32 if anything is to be done, else as they are."""
        if drawn.affine is None:
            return images
        grid = F.affine_grid(drawn.affine, list(images.shape), align_corners=False)
        if drawn.moved is not None:
            field = F.interpolate(drawn.moved, images.shape[2:], mode="bicubic", align_corners=True)
            grid = grid + field.permute(0, 2, 3, 1)
        padding = "zeros" if self._number("fill") == "zero" else "border"
        return F.grid_sample(images.to(torch.float32), grid, "bilinear", padding, align_corners=False)

    def _plain_factor_and_offset(self, images: Tensor, crops: Tensor) -> tuple[Tensor, Tensor]:
        """The normalisation alone, as :meth:`_factor_and_offset`."""
        one = torch.ones((len(images), 1), dtype=torch.float64, device=images.device)
        return self._factor_and_offset(images, crops, one, torch.zeros_like(one), is_neutral=True)

    def _factor_and_offset(
        self, images: Tensor, crops: Tensor, contrast: Tensor, shift: Tensor, *, is_neutral: bool
    ) -> tuple[Tensor, Tensor]:
        """Contrast, brightness and normalisation as one factor and one offset for each channel, ``[B, C, 1, 1]``.

        Args:
            images: ``[B, C, H, W]``, the whole images.
            crops: ``[B, C, h, w]``, the windows to prepare.
            contrast: ``[B, 1]``, float64, factors.
            shift: ``[B, 1]``, float64, brightness to add.
            is_neutral: whether each contrast is 1.
        """
        normalise = self._number("normalise")
        pixels = images.shape[2] * images.shape[3]
        if normalise == "scale":
            mean = 0.0 if is_neutral else _divide(_channel_sums(images)[0], pixels)
            factor, offset = _divide(contrast, 255), _divide(mean * (1 - contrast), 255) + shift
        elif normalise == "image":
            mean, deviation = _mean_and_deviation(*_channel_sums(images), pixels)
            factor, offset = contrast / deviation, shift - contrast * mean / deviation
        else:
            # Contrast about each channel's mean over the whole image, as tf.image.adjust_contrast has it.
            mean = 0.0 if is_neutral else _divide(_channel_sums(images)[0], pixels)
            offset = mean * (1 - contrast) + shift
            first, second = _channel_sums(crops)
            count = crops.shape[2] * crops.shape[3]
            varied = contrast * first + offset * count
            squares = contrast**2 * second + 2 * contrast * offset * first + offset**2 * count
            mean, deviation = _mean_and_deviation(varied, squares, count)
            factor, offset = contrast / deviation, (offset - mean) / deviation
        shape = crops.shape[:2]
        return (
            factor.expand(shape).to(torch.float32)[:, :, None, None],
            offset.expand(shape).to(torch.float32)[:, :, None, None],
        )


def _scaled(crops: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    return crops.to(torch.float32).mul_(factor).add_(offset)
