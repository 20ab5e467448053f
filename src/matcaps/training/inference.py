"""The earlier place of :mod:`matcaps.inference`, kept for code that imports from here."""

from matcaps.inference.saved import SavedNetwork, evaluate_saved, load_saved_data, open_saved, read_as

__all__ = ["SavedNetwork", "evaluate_saved", "load_saved_data", "open_saved", "read_as"]
