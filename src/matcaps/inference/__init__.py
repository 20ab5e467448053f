"""Use what a training left: open a saved network, test it on labelled images, classify new ones."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
