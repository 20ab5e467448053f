"""Looking inside a capsule network: one file a view, in which measuring, drawing and saying stand together.

The functions take a network on any device, look at it in evaluation mode, and leave it as it was. The ``Display``
classes draw what they found. ``inspect_saved`` does what ``matcaps inspect`` does.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
