"""A real Chromium, and a demo that is served to it. ``make test-browser`` installs what this needs and runs it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from matcaps.data.sources import SMALLNORB_STEMS
from matcaps.models import create_model
from tests.support.networks import save_digits
from tests.support.norb import norb_bytes, norb_labels


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if not os.environ.get("MATCAPS_TEST_BROWSER"):
        pytest.skip("MATCAPS_TEST_BROWSER is not set: make test-browser runs the tests in Chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: make test-browser installs it")
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as playwright:
        # as root, as in a container, Chromium has no sandbox
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        try:
            chromium = playwright.chromium.launch(executable_path=installed, args=arguments)
        except api.Error as error:
            pytest.skip(f"no Chromium: {error}")
        yield chromium
        chromium.close()


# Counts the questions that the page has asked and that are not answered yet.
COUNT = """
const ask = window.fetch;
window.pending = 0;
window.fetch = (...given) => { window.pending++; return ask(...given).finally(() => window.pending--); };
"""


@dataclass
class Visit:
    """A page, and what it asked for and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def check(self, home: str) -> None:
        """Nothing was asked of anybody but the server, and nothing went wrong."""
        assert [url for url in self.requests if not url.startswith((home, "data:", "blob:"))] == []
        assert self.complaints == []

    def check_width(self) -> None:
        width = self.page.evaluate("document.documentElement.scrollWidth")
        assert width <= self.page.viewport_size["width"], f"the page is {width} pixels wide"

    def check_pictures(self) -> None:
        missing = "[...document.images].filter((image) => !image.alt || !image.naturalWidth).length"
        assert self.page.evaluate(missing) == 0


@pytest.fixture
def visit(browser) -> Iterator[Any]:
    """Open a page; anything that it asks of another machine is refused."""
    pages = []

    def open_page(url: str, home: str, *, width: int = 1200, dark: bool = False) -> Visit:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        page.add_init_script(COUNT)
        pages.append(page)
        found = Visit(page)
        page.on("request", lambda request: found.requests.append(request.url))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("console", lambda m: found.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.route(lambda url: not url.startswith((home, "data:", "blob:")), lambda route: route.abort())
        page.goto(url)
        return found

    yield open_page
    for page in pages:
        page.close()


def write_norb(root: Path) -> None:
    """One object of each category from all sides, under one light."""
    folder = root / "smallnorb"
    folder.mkdir(parents=True)
    for split, stem in SMALLNORB_STEMS.items():
        category, info = norb_labels(split, views=18)
        own = (info[:, 0] == info[0, 0]) & (split == "test")
        own[:2] = True
        category, info = category[own], info[own].copy()
        info[:, 3] = 0
        images = np.random.default_rng(0).integers(0, 256, (len(info), 2, 96, 96), dtype=np.uint8)
        for kind, array in (("cat", category), ("info", info), ("dat", images)):
            (folder / f"{stem}-{kind}.mat").write_bytes(norb_bytes(array))


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Run the command; return the process and the address that it prints."""
    command = [sys.executable, "-m", "matcaps.cli", "demo", *arguments, "--no_browser"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "300"}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    if found is None:
        process.kill()
        pytest.fail(f"no address from {command}: {line}{process.communicate()[1]}")
    return process, found[0]


@pytest.fixture(scope="session")
def served(browser, tmp_path_factory) -> Iterator[str]:
    """The address of a demo: a network of the tutorial's size and a decoder, neither trained, and a small smallNORB."""
    pytest.importorskip("gradio", reason="no Gradio: make test-browser installs it")
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    network = create_model("annealed-tutorial")
    network.calibrate(torch.rand(8, 1, 28, 28))
    digits = save_digits(folder / "digits", network=network)
    write_norb(folder / "data")
    process, url = start(str(digits), "--root", str(folder / "data"))
    yield url
    process.terminate()
    process.communicate(timeout=20)
