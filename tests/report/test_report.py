"""The page about runs: what is in it, and that it needs nothing from outside."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from matcaps import cli
from matcaps.data import load_data
from matcaps.inspect.mistakes import MistakesDisplay
from matcaps.models.scores import class_scores
from matcaps.report import collect_run, make_report
from matcaps.training import load_run, train
from tests.support.runs import TINY_CNN, tiny_settings


@pytest.fixture(scope="module")
def capsules(tmp_path_factory) -> Path:
    return train(tiny_settings(epochs=2), tmp_path_factory.mktemp("runs") / "capsules").folder


@pytest.fixture(scope="module")
def cnn(tmp_path_factory) -> Path:
    settings = replace(tiny_settings(epochs=2), model=TINY_CNN)
    return train(settings, tmp_path_factory.mktemp("runs") / "cnn").folder


class Page(HTMLParser):
    """What a page holds, and whether its elements are closed in order."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "img":
            self.images.append(values)
        if "href" in values:
            self.links.append(values["href"])
        if "id" in values:
            self.ids.append(values["id"])
        assert tag != "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_worst_mistakes_are_wrong_and_come_worst_first(capsules):
    facts = collect_run(capsules, num_mistakes=5)
    network, settings = load_run(capsules)
    test = load_data(settings.data, settings.seed)
    scores = class_scores(network, test.transform.evaluate(test.test.images))
    wrong = (scores.argmax(dim=1) != test.test.labels).sum().item()
    assert len(facts.mistakes) == min(5, wrong) > 0
    leads = [shown.mistake.lead for shown in facts.mistakes]
    assert leads == sorted(leads, reverse=True)
    places = {int(index): place for place, index in enumerate(test.test.indices)}
    for shown in facts.mistakes:
        mistake, place = shown.mistake, places[shown.mistake.index]
        assert mistake.label == test.classes[test.test.labels[place]] != mistake.predicted
        assert np.array_equal(shown.image, test.test.images[place].numpy())


def test_a_run_that_kept_no_mistakes_is_tested_again(capsules, tmp_path):
    older = shutil.copytree(capsules, tmp_path / "older")
    results = json.loads((older / "results.json").read_text())
    kept = results["test"].pop("worst")
    (older / "results.json").write_text(json.dumps(results))
    found = [vars(shown.mistake) for shown in collect_run(older, num_mistakes=24).mistakes]
    assert found == [{**one, "lead": pytest.approx(one["lead"], abs=1e-5)} for one in kept]


def test_malformed_mistakes_are_refused(capsules, tmp_path):
    broken = shutil.copytree(capsules, tmp_path / "broken")
    results = json.loads((broken / "results.json").read_text())
    results["test"]["worst"][0]["colour"] = "red"
    (broken / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"results\.json: its worst mistakes are malformed"):
        collect_run(broken)


def test_the_page_needs_nothing_from_outside_and_says_what_its_pictures_show(capsules):
    text = make_report([collect_run(capsules)])
    page = Page(text)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    assert len(page.images) >= 3
    for image in page.images:
        assert str(image["src"]).startswith("data:image/svg+xml;base64,")
        assert len(str(image["alt"])) > 20
    for phrase in ("prefers-color-scheme: dark", "@media print", 'name="viewport"'):
        assert phrase in text


def test_the_page_holds_the_runs_figures_and_settings(capsules):
    facts = collect_run(capsules)
    text = Page(make_report([facts])).text
    assert f"{100 * facts.results['test']['accuracy']:.2f} %" in text
    assert f"{facts.results['num_parameters']:,}" in text
    assert "margin_epochs: 7" in text
    assert "Worst mistakes" in text
    assert "side by side" not in text


def test_the_page_names_the_objects_that_are_most_often_wrong(capsules):
    facts = collect_run(capsules)
    assert "By object" not in Page(make_report([facts])).text
    test = facts.results["test"]
    classes = test["classes"]

    def page(wrong: dict[tuple[int, int], float]) -> str:
        right = {str(one): [1 - wrong.get((one, label), 0.0) for label in range(9)] + [None] for one in (0, 3)}
        results = facts.results | {"test": test | {"class_accuracy_by": {"instance": right}}}
        return Page(make_report([replace(facts, results=results)])).text

    assert "By object" not in page({})
    hardest = f"By object, most are wrong of {classes[2]} 3 (50.0 %), {classes[1]} 0 (17.0 %); of all others 0.0 % on"
    assert hardest in page({(3, 2): 0.5, (0, 1): 0.17})
    text = page({(3, 2): 0.5, (0, 1): 0.25, (3, 1): 0.25, (0, 0): 0.14})
    assert f"{classes[2]} 3 (50.0 %), {classes[1]} 0 (25.0 %), {classes[1]} 3 (25.0 %); of all others 0.9 % on" in text


def test_the_page_says_what_routing_does_for_the_true_class(capsules):
    facts = collect_run(capsules)
    page = Page(make_report([facts]))
    assert "Agreement" in page.text
    assert "of the validation part, the final network. Routing " in page.text
    assert "What routing does for the true class, by epoch." in page.text
    assert "After epoch 2: Routing " in page.text  # the last, which always has a look
    pictures = len(page.images)
    older = replace(
        facts,
        results={name: value for name, value in facts.results.items() if name != "agreement"},
        metrics=[
            {name: value for name, value in row.items() if not name.startswith("agreement/")} for row in facts.metrics
        ],
    )
    page = Page(make_report([older]))
    assert "Agreement" not in page.text
    assert len(page.images) == pictures - 2


@pytest.mark.parametrize(
    ("share", "gap", "said"),
    [
        ((0.1, 0.3, 0.6), (-0.1, -0.4, -0.8), "Routing gives the true class data and brings its votes together"),
        ((0.1, 0.2, 0.02), (-0.3, -0.2, -0.2), "Routing neither gives the true class data nor brings its votes"),
    ],
)
def test_the_page_claims_no_agreement_where_there_is_none(share, gap, said, capsules):
    facts = collect_run(capsules)
    row = dict(facts.metrics[-1])
    for iteration in range(3):
        row[f"agreement/share_true_{iteration + 1}"] = str(share[iteration])
        row[f"agreement/log_deviation_gap_{iteration + 1}"] = str(gap[iteration])
    results = {name: value for name, value in facts.results.items() if name != "agreement"}
    page = Page(make_report([replace(facts, metrics=[*facts.metrics[:-1], row], results=results)]))
    assert f"After epoch 2: {said}" in page.text
    measured = facts.results["agreement"] | {
        "share_true": share,
        "log_deviation_true": gap,
        "log_deviation_others": [0, 0, 0],
    }
    measured = json.loads(json.dumps(measured))
    page = Page(make_report([replace(facts, results=facts.results | {"agreement": measured})]))
    assert f"the final network. {said}" in page.text


def test_malformed_measures_of_agreement_are_refused(capsules):
    facts = collect_run(capsules)
    for broken in ({}, "none", facts.results["agreement"] | {"layers": 3}):
        with pytest.raises(ValueError, match=r"results\.json: its measures of agreement are malformed"):
            make_report([replace(facts, results=facts.results | {"agreement": broken})])


def test_several_runs_are_compared(capsules, cnn):
    page = Page(make_report([collect_run(capsules), collect_run(cnn)], title="A & B"))
    assert page.text.count("A & B") == 2  # in the head and as heading, escaped
    assert "The runs side by side" in page.text
    assert set(page.links) == {"#run-1", "#run-2"} <= {f"#{name}" for name in page.ids}


def test_a_cnn_has_no_capsules_to_watch(cnn):
    page = make_report([collect_run(cnn)])
    assert "How awake the capsules are" not in page
    assert "Agreement" not in Page(page).text


def test_the_same_folder_twice_gets_two_names(cnn):
    facts = collect_run(cnn)
    text = Page(make_report([facts, facts])).text
    assert "cnn (1)" in text
    assert "cnn (2)" in text


def test_without_data_the_page_says_why_mistakes_are_missing(capsules, tmp_path):
    facts = replace(collect_run(capsules), mistakes=[], note="The data are not here: fetch them.")
    assert "The data are not here: fetch them." in make_report([facts])


def test_names_cannot_break_the_page(capsules):
    facts = collect_run(capsules)
    results = {**facts.results, "command": "<script>alert(1)</script>"}
    assert "<script>" not in make_report([replace(facts, results=results)])


def test_no_runs():
    with pytest.raises(ValueError, match="at least one run"):
        make_report([])


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no settings\.yaml in"):
        collect_run(tmp_path)


def test_what_inspect_left_is_on_the_page(capsules, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(capsules, folder)
    assert "Looking inside" not in make_report([collect_run(folder)])
    assert cli.main(["inspect", str(folder), "--num_images", "40"]) == 0
    page = Page(make_report([collect_run(folder)]))
    assert "Looking inside" in page.text
    assert "Vote distances over the set: Votes for the true class " in page.text
    assert sum(str(image["src"]).startswith("data:image/png") for image in page.images) >= 5
    assert "agreement" in collect_run(folder).inspected
    # of another inspection the figures from before are not shown
    assert cli.main(["inspect", str(folder), "--num_images", "0"]) == 0
    assert list(collect_run(folder).inspected) == [
        *("activations", "assignments", "em_steps", "true_and_wrong", "votes")
    ]


def test_each_mistake_is_drawn_under_its_classes(capsules):
    shown = collect_run(capsules, num_mistakes=5).mistakes
    figure = MistakesDisplay(shown).plot()
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == [f"{one.mistake.label}\n→ {one.mistake.predicted}" for one in shown]
    assert all(np.array_equal(axes.images[0].get_array(), one.image[0]) for axes, one in zip(drawn, shown, strict=True))
