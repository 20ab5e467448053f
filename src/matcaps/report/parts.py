"""What a page is made of: headed sections, with pictures in them."""

import base64
import io
from dataclasses import dataclass

from matcaps.inspect.display import Display
from matcaps.inspect.style import save_svg


@dataclass(frozen=True)
class Picture:
    """A figure on the page.

    Attributes:
        source: the picture itself, as a data URL.
        alternative: what it shows, for who cannot see it.
        caption: what it means, in a sentence for a newcomer.
    """

    source: str
    alternative: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A headed part of a run's report."""

    title: str
    text: str
    figures: tuple[Picture, ...]


def picture(display: Display, alternative: str, caption: str = "") -> Picture:
    """A view's figure as SVG in a data URL, with the view's caption unless there is another."""
    buffer = io.BytesIO()
    save_svg(display.plot(), buffer)
    return Picture(data_url(buffer.getvalue(), "image/svg+xml"), alternative, caption or display.caption)


def data_url(content: bytes, kind: str) -> str:
    """A file's content as an address that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
