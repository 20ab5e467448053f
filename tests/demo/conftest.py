"""A run whose network and decoder are made, not trained: what is computed is right all the same."""

from pathlib import Path

import pytest

from matcaps.demo.session import DemoNetwork, open_demo
from tests.support.networks import save_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    return save_digits(tmp_path_factory.mktemp("demo") / "digits")


@pytest.fixture(scope="session")
def demo(digits, tmp_path_factory) -> DemoNetwork:
    return open_demo(str(digits), root=str(tmp_path_factory.mktemp("no-data")))
