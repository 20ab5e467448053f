"""The paper's experiments: what they consist of, how they run, what came of them.

Names are imported when they are first used, so that plans can be had without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
