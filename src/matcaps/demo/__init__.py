"""A web page on which a network can be tried; computation is separate from presentation.

``strokes``, ``pictures``, ``session`` and ``viewpoints`` compute, ``charts`` and ``panels`` make HTML and SVG from the
results; only ``app`` and ``viewpoint_page`` need Gradio, the extra ``matcaps[demo]``.
"""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names

if TYPE_CHECKING:
    from matcaps.demo.app import Server, serve
    from matcaps.demo.examples import Examples
    from matcaps.demo.pictures import Prepared, prepare_digit, read_upload
    from matcaps.demo.session import Attacked, DemoNetwork, Reading, open_demo
    from matcaps.demo.strokes import draw_strokes, drawn_digits, parse_strokes
    from matcaps.demo.viewpoints import ObjectViews, open_views

_MODULES = {
    "app": ("Server", "serve"),
    "examples": ("Examples",),
    "pictures": ("Prepared", "prepare_digit", "read_upload"),
    "session": ("Attacked", "DemoNetwork", "Reading", "open_demo"),
    "strokes": ("draw_strokes", "drawn_digits", "parse_strokes"),
    "viewpoints": ("ObjectViews", "open_views"),
}
__getattr__, __dir__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
)

__all__ = [
    "Attacked",
    "DemoNetwork",
    "Examples",
    "ObjectViews",
    "Prepared",
    "Reading",
    "Server",
    "draw_strokes",
    "drawn_digits",
    "open_demo",
    "open_views",
    "parse_strokes",
    "prepare_digit",
    "read_upload",
    "serve",
]
