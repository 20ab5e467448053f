"""Looking inside a capsule network: one file for each view, which measures, draws and describes it in sentences.

The functions take a network on any device, look at it in evaluation mode, and leave it as it was. The ``Display``
classes draw the results. ``inspect_saved`` does what ``matcaps inspect`` does.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
