"""Write the README's figure, light and dark, into ``docs/``."""

from pathlib import Path

from . import README, write

write(README, Path(__file__).resolve().parents[1])
