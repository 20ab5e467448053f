"""Turn a decoded image of any mode into an upright picture with eight bits a channel, in grey or colour."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_SIGNED, _WHITE_IS_ZERO = 2, 0
_HARDLY_SHOWS = 64  # grey levels of 255
_BAND = 1 << 22  # pixels


def turned_upright(image: Image.Image) -> Image.Image:
    """Turn the picture according to its EXIF orientation.

    Only that one tag is read. Pillow's ``exif_transpose`` also writes all the others again, and fails at the first
    that has a wrong type. An orientation that is none, or that cannot be read, turns nothing.
    """
    try:
        orientation: Any = image.getexif().get(_ORIENTATION)
    except Exception:  # whatever a parser of damaged metadata comes to; the picture itself may be sound
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def bands(image: Image.Image, multiple: int = 1) -> Iterator[Image.Image]:
    """The rows of a picture, some at a time, so that what is made of them takes little memory.

    Args:
        image: of any mode.
        multiple: of which the height of each but the last is one.
    """
    rows = max(1, _BAND // (image.width * multiple)) * multiple
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def has_transparency(image: Image.Image) -> bool:
    """Whether pixels can be transparent: by an alpha channel, by a palette, or by one colour that means transparent."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def eight_bits(image: Image.Image, transparency: str, *, colour: bool, tags: Mapping[int, Any]) -> Image.Image:
    """The picture in mode "RGB" or "L".

    Args:
        image: as decoded.
        transparency: what is laid under transparent pixels, as :attr:`matcaps.data.DataSettings.transparency`.
        colour: whether "RGB" is wanted.
        tags: a TIFF file's, which say how many bits are used; empty for other files.

    Raises:
        ValueError: the grey levels have no known range; the message does not name the file.
    """
    wanted = "RGB" if colour else "L"
    if image.mode.startswith(("I", "F")):
        image = _scaled(image, tags)
    elif image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
        assert converted is not None
        image = converted
    if transparency != "drop" and has_transparency(image):
        image = _on_background(image, transparency)
    return image if image.mode == wanted else image.convert(wanted)


def _on_background(image: Image.Image, transparency: str) -> Image.Image:
    """A picture of any mode laid on white or black, "RGB"; for "auto" on black if it would hardly show on white."""
    weight, contrast = 0, 0  # of the distance from white, squared, weighted by opacity
    for band in bands(image):
        seen = band.convert("RGBA")
        alpha = np.asarray(seen.getchannel("A"), dtype=np.uint32)  # times 255² it still fits
        weight += int(alpha.sum(dtype=np.uint64))
        if transparency == "auto" and alpha.any():
            distance = 255 - np.asarray(seen.convert("RGB").convert("L"), dtype=np.uint32)
            contrast += int((alpha * distance * distance).sum(dtype=np.uint64))
    if weight == 0:
        return image.convert("RGBA").convert("RGB")  # nothing would be visible: the alpha channel was left empty
    ground = transparency
    if transparency == "auto":
        ground = "black" if contrast < _HARDLY_SHOWS**2 * weight else "white"
    laid = Image.new("RGB", image.size)
    top = 0
    for band in bands(image):
        below = Image.new("RGBA", band.size, ground)
        laid.paste(Image.alpha_composite(below, band.convert("RGBA")).convert("RGB"), (0, top))
        top += band.height
    return laid


def _scaled(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Grey levels of more than eight bits, scaled by their range: "L", or "LA" where one level means transparent."""
    values = np.asarray(image)
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # as of NaN, too
            raise ValueError("its floating-point values must lie between 0 and 1: scale them")
        white = 1.0
    else:
        bits = tags.get(_BITS_PER_SAMPLE, (16,))
        bits = bits[0] if isinstance(bits, tuple) else bits
        sample_format = tags.get(_SAMPLE_FORMAT, (1,))
        sample_format = sample_format[0] if isinstance(sample_format, tuple) else sample_format
        if bits not in range(9, 17) or sample_format == _SIGNED or values.min() < 0 or values.max() >= 1 << bits:
            raise ValueError(
                "its pixels must be unsigned integers of 9 to 16 bits, or the value of white is unknown: "
                "convert it to 8 or 16 bits"
            )
        white = float((1 << bits) - 1)
    levels = _levels(values, white)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 255 - levels
    grey = Image.fromarray(levels)
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    grey.putalpha(Image.fromarray((values != clear).astype(np.uint8) * np.uint8(255)))
    return grey


def _levels(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    levels = np.empty(values.shape, np.uint8)
    rows = max(1, _BAND // max(1, values.shape[1]))
    for top in range(0, len(values), rows):
        band = values[top : top + rows].astype(np.float64)
        band *= 255 / white
        levels[top : top + rows] = np.rint(band, out=band)
    return levels
