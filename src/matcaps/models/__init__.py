"""The networks. Configurations and presets are free of torch; the rest is imported when first asked for."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
