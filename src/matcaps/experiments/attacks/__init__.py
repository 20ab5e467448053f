"""Adversarial attacks, and how well networks withstand them, as a record of plain values."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
