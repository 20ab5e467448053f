"""Matrix capsule networks with EM routing (Hinton, Sabour and Frosst, 2018) in PyTorch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
