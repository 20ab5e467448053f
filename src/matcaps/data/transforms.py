"""From stored images to the network's input: whole batches at once, each image by its own key.

Everything but the affine warp comes down to cutting a window out of a uint8 image and multiplying and shifting it.
The factor and the shift follow from exact integer sums in float64, so an image's result does not depend, not even in
its last bit, on the images beside it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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


def _windows(images: Tensor, top: np.ndarray, left: np.ndarray, size: int) -> Tensor:
    """Cut one square out of each image: ``[B, C, H, W]`` to ``[B, C, size, size]``."""
    views = images.unfold(2, size, 1).unfold(3, size, 1)
    batch = torch.arange(len(images))
    return views[batch, :, torch.from_numpy(top), torch.from_numpy(left)]


def _channel_sums(images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Sums, and sums of squares, over each channel: ``[B, C]``, float64; exact for uint8."""
    values = images.flatten(2).to(torch.float64)
    return values.sum(2).numpy(), (values * values).sum(2).numpy()


def _mean_and_deviation(first: np.ndarray, second: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over pixels and channels, ``[B, 1]``, from sums ``[B, C]`` of first and second
    powers. A deviation is never below 1 over the root of their number, so that a blank image comes out as zeros."""
    count = pixels * first.shape[1]
    mean = first.sum(1, keepdims=True) / count
    variance = np.maximum(second.sum(1, keepdims=True) / count - mean * mean, 0)
    return mean, np.maximum(np.sqrt(variance), 1 / math.sqrt(count))


def _neutral(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Contrast and brightness ``[B, 1]`` that change nothing."""
    return np.ones((count, 1)), np.zeros((count, 1))


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
        """All there is to know, as plain values to be stored beside the weights."""
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
            images: ``[B, C, H, W]``, uint8, H and W equal to ``image_size``.
            indices: ``[B]`` integers that identify the images.
            seed: the run's seed.
            epoch: the epoch, from 0.

        Returns:
            ``[B, C, output_size, output_size]``, float32.

        Raises:
            ValueError: the images have another shape or dtype.
        """
        self._check(images)
        keys = make_keys(seed, epoch, indices)
        if self._number("flip"):
            images = torch.where(
                torch.from_numpy(uniform(keys, _FLIP) < 0.5)[:, None, None, None], images.flip(3), images
            )
        images = self._warp(images, keys)
        low, high = self._number("min_contrast"), self._number("max_contrast")
        brightness = self._number("max_brightness")
        contrast = uniform_between(keys, _CONTRAST, low, high)[:, None]
        shift = uniform_between(keys, _BRIGHTNESS, -brightness, brightness)[:, None]
        top, left, padded = self._random_places(images, keys)
        return self._prepare(images, _windows(padded, top, left, self.output_size), contrast, shift)

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
        factor, offset = (value[:, :1] for value in self._factor_and_offset(images, crops, *_neutral(len(images))))
        return offset.clone(), factor.mul(255).add_(offset)

    def _check(self, images: Tensor) -> None:
        size = self.image_size
        if images.ndim != 4 or images.shape[2:] != (size, size) or images.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 [B, C, {size}, {size}]; got {images.dtype} {list(images.shape)}: "
                "bring them to the size that the transform was made for"
            )

    def _crops(self, images: Tensor, count: int) -> Tensor:
        self._check(images)
        size = self.output_size
        crops = [
            self._prepare(images, images[:, :, top : top + size, left : left + size], *_neutral(len(images)))
            for top, left in crop_places(count, self.image_size - size)
        ]
        return torch.stack(crops, 1)

    def _random_places(self, images: Tensor, keys: Keys) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Where to cut each window, and what to cut it from: the images with a margin for the shift."""
        room, margin = self.image_size - self.output_size, self._number("max_shift")
        reach = math.floor(room * self._number("crop_jitter") + 0.5)
        [(first, _)] = crop_places(1, room - reach)
        top = first + integers(keys, _TOP, reach + 1)
        left = first + integers(keys, _LEFT, reach + 1)
        if margin:
            top += integers(keys, _DOWN, 2 * margin + 1)
            left += integers(keys, _RIGHT, 2 * margin + 1)
            if self._number("fill") == "zero":
                images = F.pad(images, (margin,) * 4)
            else:
                near = torch.arange(-margin, self.image_size + margin).clamp_(0, self.image_size - 1)
                images = images[:, :, near][:, :, :, near]
        return top, left, images

    def _warp(self, images: Tensor, keys: Keys) -> Tensor:
        """Rotate, scale and shear about the centre, and deform; float32 if anything is to be done, else as they are."""
        rotation, scale, shear, elastic = (
            self._number(name) for name in ("max_rotation", "max_scale", "max_shear", "max_elastic")
        )
        if not (rotation or scale or shear or elastic):
            return images
        angle = np.radians(uniform_between(keys, _ROTATION, -rotation, rotation))
        # The grid says where each output pixel comes from, so a larger picture needs a smaller step.
        step = 1 / uniform_between(keys, _SCALE, 1 - scale, 1 + scale)
        slant = np.tan(np.radians(uniform_between(keys, _SHEAR, -shear, shear)))
        cosine, sine, zero = np.cos(angle) * step, np.sin(angle) * step, np.zeros_like(step)
        rows = [[cosine, slant * cosine - sine, zero], [sine, slant * sine + cosine, zero]]
        theta = torch.from_numpy(np.array(rows).transpose(2, 0, 1)).to(torch.float32)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        if elastic:
            draws = uniform(keys[:, None], _ELASTIC).reshape(-1, 2, _ELASTIC_POINTS, _ELASTIC_POINTS)
            moved = torch.from_numpy((2 * draws - 1) * (2 * elastic / self.image_size)).to(torch.float32)
            field = F.interpolate(moved, images.shape[2:], mode="bicubic", align_corners=True)
            grid = grid + field.permute(0, 2, 3, 1)
        padding = "zeros" if self._number("fill") == "zero" else "border"
        return F.grid_sample(images.to(torch.float32), grid, "bilinear", padding, align_corners=False)

    def _prepare(self, images: Tensor, crops: Tensor, contrast: np.ndarray, shift: np.ndarray) -> Tensor:
        """Contrast, brightness and normalisation of the crops; the arguments are those of _factor_and_offset."""
        factor, offset = self._factor_and_offset(images, crops, contrast, shift)
        return crops.to(torch.float32).mul_(factor).add_(offset)

    def _factor_and_offset(
        self, images: Tensor, crops: Tensor, contrast: np.ndarray, shift: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """Contrast, brightness and normalisation as one factor and one offset for each channel, ``[B, C, 1, 1]``.

        Args:
            images: ``[B, C, H, W]``, the whole images.
            crops: ``[B, C, h, w]``, the windows to prepare.
            contrast: ``[B, 1]``, factors.
            shift: ``[B, 1]``, brightness to add.
        """
        normalise = self._number("normalise")
        pixels = images.shape[2] * images.shape[3]
        neutral = bool(np.all(contrast == 1))
        if normalise == "scale":
            mean = 0.0 if neutral else _channel_sums(images)[0] / pixels
            factor, offset = contrast / 255, mean * (1 - contrast) / 255 + shift
        elif normalise == "image":
            mean, deviation = _mean_and_deviation(*_channel_sums(images), pixels)
            factor, offset = contrast / deviation, shift - contrast * mean / deviation
        else:
            # Contrast about each channel's mean over the whole image, as tf.image.adjust_contrast has it.
            mean = 0.0 if neutral else _channel_sums(images)[0] / pixels
            offset = mean * (1 - contrast) + shift
            first, second = _channel_sums(crops)
            count = crops.shape[2] * crops.shape[3]
            varied = contrast * first + offset * count
            squares = contrast**2 * second + 2 * contrast * offset * first + offset**2 * count
            mean, deviation = _mean_and_deviation(varied, squares, count)
            factor, offset = contrast / deviation, (offset - mean) / deviation
        shape = crops.shape[:2]
        factor, offset = (
            torch.from_numpy(np.broadcast_to(value, shape).astype(np.float32))[:, :, None, None]
            for value in (factor, offset)
        )
        return factor, offset
