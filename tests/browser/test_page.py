"""The page docs/browser.md in Chromium, as ``make docs`` built it: from static files, with nothing asked of anybody."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from matcaps.inference import open_saved

SITE = Path(__file__).parents[2] / "build" / "site"
WAIT = 60_000  # milliseconds, for a machine that is busy
MODULE = "const {shown} = await import('./_static/browser/page.mjs');"  # the page's own, not a second one
TOYS = "paper-small-smallnorb"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # which browsers ask for, and the site has none
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(browser) -> Iterator[str]:
    if not (SITE / "_static" / "browser" / "sizes.json").is_file():
        pytest.skip("the site has no network in it: make docs, where npm reaches a registry")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def opened(visit, site):
    found = visit(f"{site}browser.html", site)
    found.page.wait_for_selector(".mc-said li", timeout=WAIT)
    yield found
    found.check(site)


def ask(page, expression: str):
    return page.evaluate(f"(async () => {{ {MODULE} return {expression}; }})()")


def settle(page, network: str = "tutorial-mnist") -> None:
    """Wait until the network has answered and nothing more comes."""
    page.wait_for_function(f"(async () => {{ {MODULE} return shown.network === '{network}' && shown.routing; }})()")
    before = -1
    while before != (now := ask(page, "shown.count")):
        before = now
        page.wait_for_timeout(1500)


def check_activations(page, name: str) -> torch.Tensor:
    """The page's answer is the network's for the same grey levels, in Python; from its levels to its input, too."""
    saved = open_saved(name)
    network: Any = saved.network
    levels, values = ask(page, "[[...shown.levels], [...shown.input]]")
    size, channels = saved.transform.image_size, network.config.in_channels
    images = saved.transform.evaluate(torch.tensor(levels, dtype=torch.uint8).view(1, channels, size, size))
    torch.testing.assert_close(torch.tensor(values).view_as(images), images, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        states = network.trace(images)["class_capsules"]
        expected = network(images).activations[0]
    found = torch.tensor(ask(page, "[...shown.routing.activations]"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    histories = ask(page, "shown.histories")
    for t, state in enumerate(states):
        shares = torch.tensor([history[t]["share"] for history in histories])
        torch.testing.assert_close(shares, state.mass[0] / state.mass[0].sum(), rtol=0, atol=1e-4)
        deviations = torch.tensor([history[t]["logDeviation"] for history in histories])
        torch.testing.assert_close(deviations, state.variance[0].log().mean(-1) / 2, rtol=0, atol=1e-3)
    return expected


def draw(page, *points: tuple[float, float]) -> None:
    page.locator(".mc-pad").scroll_into_view_if_needed()
    box = page.locator(".mc-pad").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def test_a_drawn_digit_is_answered_as_in_python(opened):
    page = opened.page
    page.get_by_role("button", name="Clear").click()
    assert "Nothing is drawn" in page.locator(".mc-answer").inner_text()
    assert not page.locator(".mc-pair").is_visible()
    draw(page, (0.25, 0.2), (0.75, 0.2), (0.45, 0.85))
    settle(page)
    activations = check_activations(page, "tutorial-mnist")
    assert int(activations.argmax()) == 7
    assert page.locator(".mc-answer").inner_text().startswith(f"Most active is 7 ({float(activations.max()):.2f})")
    assert f"7 {float(activations[7]):.2f}" in page.locator(".mc-bars svg").get_attribute("aria-label")


def test_every_iteration_is_shown(opened):
    page = opened.page
    settle(page)
    slider, plane = page.get_by_role("slider", name="Iteration"), page.locator(".mc-first .mc-plane svg")
    assert page.locator(".mc-table thead th").all_inner_texts() == ["by iteration", "class", "1", "2", "3"]
    histories, order = ask(page, "[shown.histories, [...shown.routing.activations]]")
    best = max(range(10), key=lambda label: order[label])
    seen = set()
    slider.focus()
    for t in (2, 1, 0):
        assert page.locator(".mc-first circle").count() == 512
        label, share = plane.get_attribute("aria-label"), histories[best][t]["share"]
        assert f"after iteration {t + 1} of 3: {100 * share:.1f}\u00a0% of the data" in label
        radii = page.locator(".mc-first circle").evaluate_all("(dots) => dots.map((dot) => dot.getAttribute('r'))")
        weights = ask(
            page,
            f"[...shown.routing.children].map((a, i) => a * shown.routing.assignment[({t} * 512 + i) * 10 + {best}])",
        )
        assert [float(radius) for radius in radii] == pytest.approx([9 * weight**0.5 for weight in weights], abs=0.02)
        seen.add(tuple(radii))
        page.keyboard.press("ArrowLeft")
    assert len(seen) == 3
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('.mc-iteration').value === '3'", timeout=WAIT)
    page.get_by_label("Beside the most active class").select_option("0" if best else "1")
    assert page.locator(".mc-second h3").inner_text() == f"Votes for {0 if best else 1}"


def test_the_toys_are_answered_as_in_python(opened, tmp_path):
    page = opened.page
    page.get_by_label("toys, seen by two cameras").check()
    settle(page, TOYS)
    check_activations(page, TOYS)
    before = ask(page, "[...shown.levels]")
    page.get_by_label("Turned by").focus()
    page.keyboard.press("ArrowRight")
    settle(page, TOYS)
    assert ask(page, "[...shown.levels]") != before
    check_activations(page, TOYS)
    assert page.locator(".mc-first circle").count() == 256
    for name, shade in (("left.png", 40), ("right.png", 90)):
        picture = Image.new("L", (120, 90), 220)
        picture.paste(shade, (40, 30, 80, 60))
        picture.save(tmp_path / name)
    (tmp_path / "text.png").write_text("this is no picture")
    page.locator(".mc-files").set_input_files([tmp_path / "left.png", tmp_path / "right.png"])
    settle(page, TOYS)
    levels = ask(page, "[...shown.levels]")
    assert (levels[0], levels[24 * 48 + 24], levels[(48 + 24) * 48 + 24]) == (220, 40, 90)
    check_activations(page, TOYS)
    page.locator(".mc-files").set_input_files(tmp_path / "text.png")
    page.wait_for_function("document.querySelector('.mc-source').textContent.includes('cannot be read as a picture')")
    page.get_by_label("handwritten digits").check()
    settle(page)
    check_activations(page, "tutorial-mnist")


def test_a_digit_can_be_drawn_and_all_be_reached_by_keyboard(opened):
    page = opened.page
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("handwritten digits").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Drawing pad"
    page.keyboard.press("Space")
    for _ in range(14):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    settle(page)
    assert int(check_activations(page, "tutorial-mnist").argmax()) == 1
    reached = []
    for _ in range(15):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.ariaLabel"))
    assert reached[:2] == ["mc-clear", "A drawn 0"]
    assert reached[11:] == ["mc-iteration", "mc-play", "mc-other", "mc-scroll"]


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False), (390, True)])
def test_the_page_fits_and_is_described(visit, site, width, dark):
    found = visit(f"{site}browser.html", site, width=width, dark=dark)
    page = found.page
    page.wait_for_selector(".mc-said li", timeout=WAIT)
    for network in ("handwritten digits", "toys, seen by two cameras"):
        page.get_by_label(network).check()
        settle(page, TOYS if network.startswith("toys") else "tutorial-mnist")
        found.check_width()
        assert page.evaluate("[...document.querySelectorAll('.mc-chart, .mc canvas')].every((part) => part.ariaLabel)")
        unnamed = (
            "[...document.querySelectorAll('.mc :is(input, select)')].filter((part) => !part.labels.length).length"
        )
        assert page.evaluate(unnamed) == 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
    assert sum(background) < 200 if dark else sum(background) > 600
    found.check(site)


def test_the_page_is_small_and_says_what_went_wrong(visit, site):
    folder = SITE / "_static" / "browser"
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 20_000_000
    assert "LICENSE.txt" in sizes
    listed = json.loads((folder / "sizes.json").read_text(encoding="utf-8"))
    assert all((folder / name).stat().st_size == size for name, size in listed.items())
    found = visit(site, site)
    found.page.route("**/tutorial-mnist.onnx", lambda route: route.fulfill(status=404, body="gone"))
    found.page.goto(f"{site}browser.html")
    found.page.wait_for_selector(".mc-problem", timeout=WAIT)
    said = found.page.locator(".mc-problem").inner_text()
    assert said.startswith("The network cannot run here: networks/tutorial-mnist.onnx could not be loaded: 404")
