"""Charts and pictures as SVG and PNG in HTML: made in a millisecond, sharp at any size, in the page's own colours.

Text and axes take the page's colour, so they are legible in light and dark; marks have the colours of
:mod:`matcaps.inspect.style`, which colour-blind people tell apart, and never a meaning by colour alone.
"""

import base64
import io
import math
from collections.abc import Sequence
from html import escape

from PIL import Image
from torch import Tensor

from matcaps._numbers import short_number
from matcaps.data.names import short_name
from matcaps.inspect.style import COLOURS

CHOSEN, OTHER = COLOURS[0], "#8c8c8c"
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")


def _svg(width: float, height: float, body: str, alternative: str, kind: str) -> str:
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(alternative)}">'
        f"{body}</svg>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: float = 12, more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}"'
    return f"<text {place} {more}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "axis", more: str = "") -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {more}/>'


def draw_bars(names: Sequence[str], values: Sequence[float], *, chosen: int, truth: int | None = None) -> str:
    """Class activations as horizontal bars from 0 to 1, with their values.

    Args:
        names: the classes'.
        values: from 0 to 1.
        chosen: the class to colour.
        truth: the class to mark as the true one.
    """
    names = [short_name(name, 20) for name in names]
    left, right, row, top = 14 + 7.6 * max(map(len, names)) + (48 if truth is not None else 0), 290, 20, 6
    length, bottom = right - left, top + row * len(names)
    parts = []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        y = top + row * place
        colour = CHOSEN if place == chosen else OTHER
        weight = 'font-weight="700"' if place == chosen else ""
        label = f"true ▸ {name}" if place == truth else name
        parts += [
            _text(left - 6, y + 14, label, anchor="end", size=13, more=weight),
            f'<rect x="{left}" y="{y + 3}" width="{length * min(max(value, 0), 1):.1f}" height="14" fill="{colour}"/>',
            _text(right + 8, y + 14, _rounded(value), size=13, more=weight),
        ]
    for tick in (0, 0.5, 1):
        x = left + length * tick
        parts += [
            _line(x, top, x, bottom + 4, "grid" if tick else "axis"),
            _text(x, bottom + 18, f"{tick:g}", anchor="middle"),
        ]
    parts.append(_text(left + length / 2, bottom + 34, "activation of the class capsule", anchor="middle"))
    said = ", ".join(f"{name} {_rounded(value)}" for name, value in zip(names, values, strict=True))
    return _svg(340, bottom + 40, "".join(parts), f"Class activations: {said}", "bars")


def _rounded(value: float) -> str:
    return f"{value:.3f}" if value < 0.9995 else "1.000"


def draw_histogram(
    edges: Sequence[float], counts: Sequence[float], *, top: float, mean: float, title: str, note: str, chosen: bool
) -> str:
    """One histogram of vote distances, small, with its mean as a dashed line.

    Args:
        edges: of the bins, M + 1 of them, from 0.
        counts: M sums of assignment.
        top: the end of the upright axis, the same for all histograms beside each other.
        mean: weighted mean distance.
        title: the class.
        note: the second line of the title.
        chosen: whether to colour it.
    """
    left, right, bottom, head, reach = 34, 190, 118, 36, max(edges[-1], 1e-12)
    width, height = right - left, bottom - head
    scale = width / reach
    path = [f"M{left},{bottom}"]
    for place, count in enumerate(counts):
        y = bottom - height * min(count / max(top, 1e-12), 1)
        path.append(f"V{y:.1f}H{left + scale * edges[place + 1]:.1f}")
    path.append(f"V{bottom}Z")
    x = left + scale * min(mean, reach)
    weight = 'font-weight="700"' if chosen else ""
    parts = [
        _text(left, 13, title, size=14, more=weight),
        _text(left, 29, note, size=12),
        f'<path d="{"".join(path)}" fill="{CHOSEN if chosen else OTHER}"/>',
        _line(x, head, x, bottom, "mean"),
        _line(left, bottom, right, bottom),
        _line(left, head, left, bottom),
        _text(left - 4, head + 8, short_number(top), anchor="end", size=11),
        _text(left - 4, bottom, "0", anchor="end", size=11),
        _text(left, bottom + 13, "0", anchor="middle", size=11),
        _text(right, bottom + 13, short_number(reach), anchor="end", size=11),
    ]
    return _svg(200, 136, "".join(parts), f"Vote distances of {title}: {note}", "histogram")


def draw_sweep(names: Sequence[str], values: Tensor, *, at: int) -> str:
    """The activation of each class all round an object, as lines told apart by colour and dashes.

    Args:
        names: the classes'.
        values: ``[A, classes]``, at A azimuths evenly round; NaN where there is no image.
        at: which azimuth is shown, to mark it.
    """
    count = len(values)
    left, right, top, bottom = 50, 400, 54, 214
    step = (right - left) / max(count - 1, 1)
    parts = [
        _line(left, bottom, right, bottom),
        _line(left, top, left, bottom),
        _text(12, 134, "activation", anchor="middle", more='transform="rotate(-90 12 134)"'),
    ]
    for tick in (0, 0.5, 1):
        y = bottom - (bottom - top) * tick
        parts += [_line(left, y, right, y, "grid"), _text(left - 6, y + 4, f"{tick:g}", anchor="end")]
    for place in range(0, count, 3):
        parts.append(_text(left + step * place, bottom + 17, f"{360 * place / count:g}", anchor="middle"))
    parts += [
        _text((left + right) / 2, bottom + 34, "azimuth, degrees", anchor="middle"),
        _line(left + step * at, top, left + step * at, bottom, "mean"),
    ]
    for place, name in enumerate(names):
        colour = COLOURS[place % len(COLOURS)]
        colour, dash = f'stroke="{colour}"', f'stroke-dasharray="{_DASHES[place % len(_DASHES)]}"'
        x, y = left + place % 3 * 118, 14 + 20 * (place // 3)
        parts += [
            _line(x, y, x + 28, y, "series", f"{colour} {dash}"),
            _text(x + 34, y + 4, short_name(name, 12), size=13),
            f'<path class="series" d="{_path(values[:, place].tolist(), left, step, top, bottom)}" {colour} {dash}/>',
        ]
    best = values.nan_to_num(-1).argmax(1)
    seen = [int(label) for label, row in zip(best, values, strict=True) if not math.isnan(float(row[0]))]
    said = ", ".join(f"{name} at {seen.count(label)}" for label, name in enumerate(names))
    return _svg(414, 254, "".join(parts), f"Activations by azimuth; most active of {len(seen)}: {said}", "sweep")


def _path(values: Sequence[float], left: float, step: float, top: float, bottom: float) -> str:
    """A line through values from 0 to 1, with gaps where there is none; a dot has a short line of its own."""
    drawn, path = False, []
    for place, value in enumerate(values):
        if math.isnan(value):
            drawn = False
            continue
        path.append(f"{'L' if drawn else 'M'}{left + step * place:.1f},{bottom - (bottom - top) * value:.1f}")
        if not drawn:
            path.append("h0.1")
        drawn = True
    return "".join(path)


def show_image(picture: Tensor, alternative: str, caption: str = "", *, kind: str = "") -> str:
    """A picture, its pixels enlarged as they are.

    Args:
        picture: ``[H, W]`` or ``[H, W, 3]``, from 0 to 1.
        alternative: what it shows, for who cannot see it.
        caption: what stands below it.
        kind: a class for the style sheet.
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    source = data_url(picture)
    return f'<figure class="{kind}"><img src="{source}" alt="{escape(alternative)}">{below}</figure>'


def data_url(picture: Tensor) -> str:
    """A picture, as in :func:`show_image`, as PNG in a data URL."""
    pixels = (picture.clamp(0, 1) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def diverging(values: Tensor, limit: float) -> Tensor:
    """Numbers about 0 as colours: blue below, white at 0, orange above.

    Args:
        values: ``[H, W]``.
        limit: the size at which the colour is full.

    Returns:
        ``[H, W, 3]``, from 0 to 1.
    """
    share = (values / max(limit, 1e-12)).clamp(-1, 1).unsqueeze(-1)
    low, high = (values.new_tensor([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]) for colour in COLOURS[:2])
    return 1 - share.clamp_min(0) * (1 - high) - (-share).clamp_min(0) * (1 - low)


def diverging_scale(limit: float, unit: str) -> str:
    """The legend of :func:`diverging`."""
    stops = "".join(
        f'<stop offset="{place}" stop-color="{colour}"/>'
        for place, colour in ((0, COLOURS[0]), (0.5, "#ffffff"), (1, COLOURS[1]))
    )
    body = (
        f'<defs><linearGradient id="diverging">{stops}</linearGradient></defs>'
        '<rect x="20" y="4" width="200" height="12" fill="url(#diverging)" stroke="currentColor" stroke-width="0.5"/>'
        + "".join(
            _text(x, 30, text, anchor="middle")
            for x, text in ((20, f"−{limit:.2g}"), (120, "0"), (220, f"+{limit:.2g}"))
        )
        + _text(20, 46, unit)
    )
    return _svg(330, 50, body, f"Scale of the change, from minus {limit:.2g} to {limit:.2g}", "scale")


def to_unit(image: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A network's input as a picture from black to white.

    Args:
        image: ``[C, H, W]``; of a stereo pair the first is shown.
        low: what black is, one number.
        high: what white is.

    Returns:
        ``[H, W]``, or ``[H, W, 3]`` of colour.
    """
    shown = (image - low.flatten()) / (high - low).flatten().clamp_min(1e-12)
    return shown.movedim(0, -1).clamp(0, 1) if len(image) == 3 else shown[0].clamp(0, 1)
