"""The paper's experiments: their definitions, how they run, and their results.

Names are imported when they are first used, so that plans can be made without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
