"""The README's figure is what the code draws today, light and dark."""

import re
from pathlib import Path

import numpy as np
import pytest

from docs.figures import README, write

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"-?\d+\.?\d*")


def numbers(path: Path) -> np.ndarray:
    """The places of all that is drawn; names and sizes of the file among them."""
    text = re.sub(r"<metadata>.*?</metadata>|#\w+|id=\"\w+\"", "", path.read_text(encoding="utf-8"), flags=re.S)
    return np.array([float(number) for number in NUMBER.findall(text)])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_is_what_the_code_draws(theme, tmp_path):
    write(README, tmp_path)
    name = f"{README}-{theme}.svg"
    drawn, kept = numbers(tmp_path / name), numbers(ROOT / "docs" / name)
    assert drawn.shape == kept.shape, "python -m docs.figures writes it anew"
    np.testing.assert_allclose(drawn, kept, atol=0.05, err_msg="python -m docs.figures writes it anew")


def test_the_readme_shows_it_within_its_first_screen():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for theme in ("light", "dark"):
        assert 0 < text.find(f"docs/{README}-{theme}.svg") < 2000
