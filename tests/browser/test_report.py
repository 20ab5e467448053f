"""The report opened in Chromium: in light and dark, on a phone, with nothing asked of anybody."""

from pathlib import Path

import pytest

from matcaps.report import collect_run, make_report
from matcaps.training import train
from tests.support.runs import tiny_settings


@pytest.fixture(scope="module")
def report(browser, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = train(tiny_settings(epochs=2), folder / "a-run").folder
    facts = collect_run(run)
    path = folder / "report.html"
    path.write_text(make_report([facts, facts]), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1200, 420])
@pytest.mark.parametrize("dark", [False, True])
def test_the_report_is_whole(visit, report, width, dark):
    found = visit(report.as_uri(), report.as_uri(), width=width, dark=dark)
    found.check_width()
    found.check_pictures()
    assert found.page.locator("img").count() >= 6
    light = found.page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b)"
    )
    assert light < 200 if dark else light > 600
    found.check(report.as_uri())
