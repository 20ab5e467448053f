"""The demo driven in Chromium: draw, move every slider, and see the page answer."""

import os
import statistics
from pathlib import Path

import pytest
from PIL import Image

WAIT = 10_000  # milliseconds, for a machine that is busy

# What a panel shows, without what Gradio wraps around it.
SHOWN = """(selector) => [...document.querySelectorAll(`${selector} :is(p, img, svg, td)`)]
  .map((part) => part.src || part.outerHTML).join("")"""

# Move a slider some steps, and wait until a panel shows something else: milliseconds, or -1 after ten seconds.
TIMED = """([slider, panel, steps, shown]) => new Promise((done) => {
  const show = eval(shown), before = show(panel), input = document.querySelector(slider), start = performance.now();
  const observer = new MutationObserver(() => {
    if (show(panel) === before) return;
    observer.disconnect();
    done(performance.now() - start);
  });
  observer.observe(document.querySelector(panel), {subtree: true, childList: true, attributes: true});
  setTimeout(() => done(-1), 10000);
  const by = steps * Number(input.step), up = Number(input.value) + by;
  input.value = up > Number(input.max) ? up - 2 * by : up;
  input.dispatchEvent(new Event("input", {bubbles: true}));
})"""


def ready(page) -> None:
    """Wait until Gradio has put everything in its place."""
    page.wait_for_selector("#pad canvas", timeout=60_000)
    page.wait_for_selector("#attacked p", timeout=60_000)
    settle(page)


@pytest.fixture
def opened(visit, served):
    found = visit(served, served)
    ready(found.page)
    yield found
    found.check(served)


def stroke(page, *points: tuple[float, float], lift: bool = True) -> None:
    """Draw through points from 0 to 1 on the pad."""
    box = page.locator("#pad canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    if lift:
        page.mouse.up()


SEVEN = ((0.25, 0.2), (0.75, 0.2), (0.45, 0.85))


def settle(page) -> None:
    """Wait until everything is answered and shown."""
    shown = None
    while shown != (now := page.evaluate(SHOWN, "body")):
        shown = now
        page.wait_for_function("window.pending === 0", timeout=WAIT)
        page.wait_for_timeout(400)


def draw_seven(page) -> None:
    stroke(page, *SEVEN)
    page.wait_for_selector("#seen svg.bars", timeout=WAIT)
    page.wait_for_selector("#attacked img", timeout=WAIT)
    settle(page)


def changes(page, selector: str, act) -> None:
    """A panel shows something else after something was done."""
    before = page.evaluate(SHOWN, selector)
    act()
    page.wait_for_function(
        f"([selector, before]) => ({SHOWN})(selector) !== before", arg=[selector, before], timeout=WAIT
    )


def press(page, selector: str, key: str = "ArrowRight", times: int = 5) -> None:
    page.locator(selector).focus()
    for _ in range(times):
        page.keyboard.press(key)


def sources(page, selector: str) -> list[str]:
    return [image.get_attribute("src") for image in page.locator(f"{selector} img").all()]


def test_activations_come_while_a_stroke_is_drawn(opened):
    page = opened.page
    assert "draw on the pad" in page.locator("#seen").inner_text()
    stroke(page, *SEVEN, lift=False)
    page.wait_for_selector("#seen svg.bars", timeout=WAIT)
    assert "The network sees:" in page.locator("#seen").inner_text()
    assert page.locator("#votes svg").count() == 10
    page.mouse.up()
    settle(page)
    changes(page, "#seen", lambda: stroke(page, (0.2, 0.5), (0.8, 0.5)))
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("document.querySelector('#seen').innerText.includes('Nothing to read yet')", timeout=WAIT)
    assert "first image" in page.locator("#decoded").inner_text()


def test_the_iteration_slider_changes_the_histograms(opened):
    draw_seven(opened.page)
    assert "After iteration 3 of 3" in opened.page.locator("#votes").inner_text()
    changes(opened.page, "#votes", lambda: press(opened.page, "#iteration input[type=range]", "ArrowLeft", 2))
    opened.page.wait_for_function("document.querySelector('#votes').innerText.includes('After iteration 1 of 3')")


def test_a_pose_slider_changes_the_reconstruction(opened):
    page = opened.page
    draw_seven(page)
    before = sources(page, "#decoded")
    assert len(before) == 3
    assert before[1] == before[2]
    changes(page, "#decoded", lambda: press(page, "#pose input >> nth=6", times=40))
    settle(page)
    after = sources(page, "#decoded")
    assert after[:2] == before[:2]
    assert after[2] != before[2]
    page.get_by_role("button", name="Back to the image's own pose").click()
    page.wait_for_function("document.querySelector('#decoded').innerText.includes(' 0.00 pose units')", timeout=WAIT)
    assert sources(page, "#decoded") == before


def test_epsilon_changes_the_image_and_shows_both_verdicts(opened):
    page = opened.page
    draw_seven(page)
    before = sources(page, "#attacked")
    assert before[0] == before[2]
    changes(page, "#attacked", lambda: press(page, "#epsilon input[type=range]", times=20))
    page.wait_for_function("document.querySelector('#attacked').innerText.includes('+0.2')", timeout=WAIT)
    settle(page)
    after = sources(page, "#attacked")
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert after[2] != before[2]
    assert page.locator("#attacked tr").count() == 2


def test_a_test_image_is_picked(opened):
    page = opened.page
    draw_seven(page)
    changes(page, "#seen", lambda: page.locator("#examples button").nth(3).click())
    page.wait_for_function("document.querySelector('#seen').innerText.includes('It is 3.')", timeout=WAIT)
    blank = "!document.querySelector('#pad canvas').getContext('2d').getImageData(0, 0, 280, 280).data.some(Boolean)"
    page.wait_for_function(blank, timeout=WAIT)
    changes(page, "#examples", lambda: page.get_by_role("button", name="Other images").click())


def test_uploads_good_and_bad(opened, tmp_path: Path):
    page = opened.page
    picture = Image.new("L", (120, 160), 230)
    picture.paste(10, (50, 20, 62, 140))
    picture.save(tmp_path / "one.png")
    (tmp_path / "text.png").write_text("this is no picture")
    Image.new("1", (9000, 8000)).save(tmp_path / "huge.png")
    file = page.locator("input[type=file]")
    file.set_input_files(tmp_path / "one.png")
    page.wait_for_function("document.querySelector('#seen').innerText.includes('inverted')", timeout=WAIT)
    for name, words in (("text.png", "cannot be read as an image"), ("huge.png", "at most 64,000,000 pixels")):
        file.set_input_files(tmp_path / name)
        page.wait_for_function(
            "(words) => document.querySelector('#seen [role=alert]')?.innerText.includes(words)",
            arg=words,
            timeout=WAIT,
        )
        assert str(tmp_path) not in page.locator("#seen").inner_text()
        assert "Traceback" not in page.content()


def test_an_object_is_turned(opened):
    page = opened.page
    page.get_by_role("tab", name="smallNORB").click()
    page.wait_for_selector("#view svg.sweep", timeout=60_000)
    assert page.locator("#view img").count() == 2
    for slider in ("azimuth", "elevation"):
        before = sources(page, "#view")
        changes(page, "#view", lambda name=slider: press(page, f"#{name} input[type=range]", times=1))
        assert sources(page, "#view") != before
    changes(page, "#view", lambda: page.locator("#category label").nth(2).click())
    page.wait_for_function("document.querySelector('#view').innerText.includes('It is plane')", timeout=WAIT)
    changes(page, "#view", lambda: press(page, "#lighting input[type=range]", times=1))
    page.wait_for_function("document.querySelector('#view').innerText.includes('no image of this view')", timeout=WAIT)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (420, False), (420, True)])
def test_the_page_fits_and_its_pictures_are_described(visit, served, width, dark):
    found = visit(served, served, width=width, dark=dark)
    page = found.page
    ready(page)
    found.check_width()
    draw_seven(page)
    found.check_width()
    found.check_pictures()
    assert page.evaluate("[...document.querySelectorAll('svg.chart')].every((chart) => chart.ariaLabel)")
    smallest = """Math.min(...[...document.querySelectorAll('svg.chart text')].map(
        (text) => text.getBoundingClientRect().height))"""
    assert page.evaluate(smallest) >= 9
    page.get_by_role("tab", name="smallNORB").click()
    page.wait_for_selector("#view svg.sweep", timeout=60_000)
    found.check_width()
    found.check_pictures()
    found.check(served)


def test_answers_come_quickly_after_the_first(opened, capsys):
    """From the slider's event in the browser to the change on the page, on whatever else the machine is doing."""
    page = opened.page
    draw_seven(page)
    page.get_by_role("tab", name="smallNORB").click()
    page.wait_for_selector("#view svg.sweep", timeout=60_000)
    page.get_by_role("tab", name="One image").click()
    pairs = {
        "pose": ("#pose input", "#decoded", 20),
        "epsilon": ("#epsilon input[type=range]", "#attacked", 3),
        "azimuth": ("#azimuth input[type=range]", "#view", 1),
    }
    for name, pair in pairs.items():
        page.evaluate(TIMED, [*pair, SHOWN])  # the first
        page.wait_for_timeout(300)
        times = []
        for _ in range(9):
            times.append(page.evaluate(TIMED, [*pair, SHOWN]))
            page.wait_for_timeout(50)
        with capsys.disabled():
            print(f"\n{name}: median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms")
        assert min(times) > 0, f"{name} was not answered"
        if os.getloadavg()[0] < (os.cpu_count() or 1):  # on a busy machine the time is others' as well
            assert statistics.median(times) < 200, name
