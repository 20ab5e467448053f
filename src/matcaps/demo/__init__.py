"""A page in the browser on which a network can be tried: what is computed stands apart from what is shown.

``strokes``, ``pictures``, ``session`` and ``viewpoints`` compute, ``charts`` and ``panels`` make HTML and SVG of it;
only ``app`` and ``viewpoint_page`` need Gradio, the extra ``matcaps[demo]``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
