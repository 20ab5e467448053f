"""Figures, drawn from records and traces; nothing here trains or measures."""
