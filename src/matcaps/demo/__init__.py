"""A web page on which a network can be tried; computation is separate from presentation.

``strokes``, ``pictures``, ``session`` and ``viewpoints`` compute, ``charts`` and ``panels`` make HTML and SVG from the
results; only ``app`` and ``viewpoint_page`` need Gradio, the extra ``matcaps[demo]``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
