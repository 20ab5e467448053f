"""Read images, divide them, prepare them and load them in batches.

Names are imported when they are first used, so that ``matcaps.data.settings`` can be imported without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
