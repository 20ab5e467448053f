import pytest

from matcaps.experiments import ViewpointErrors, match_familiar
from matcaps.experiments.viewpoints import read_curve


def test_curve_holds_the_epochs_that_were_looked_at():
    rows = [
        {"epoch": "1", "familiar_test/accuracy": "", "test/accuracy": ""},
        {"epoch": "2", "familiar_test/accuracy": "0.75", "test/accuracy": "0.5"},
        {"epoch": "3", "test/accuracy": "0.5"},
    ]
    assert read_curve(rows) == [ViewpointErrors(2, 25.0, 50.0)]


def test_the_better_one_is_stopped_where_it_matches_the_other_one():
    cnn = [ViewpointErrors(1, 20, 40), ViewpointErrors(2, 10, 30), ViewpointErrors(3, 6, 28)]
    capsules = [ViewpointErrors(1, 12, 25), ViewpointErrors(2, 7, 15), ViewpointErrors(3, 3, 12)]
    found = match_familiar({"cnn": cnn, "capsules": capsules})
    assert found == {"cnn": cnn[2], "capsules": capsules[1]}


def test_if_capsules_end_higher_the_cnn_is_stopped():
    cnn = [ViewpointErrors(1, 8, 40), ViewpointErrors(2, 2, 30)]
    capsules = [ViewpointErrors(1, 12, 25), ViewpointErrors(2, 9, 15)]
    assert match_familiar({"cnn": cnn, "capsules": capsules}) == {"cnn": cnn[0], "capsules": capsules[1]}


def test_a_curve_without_an_epoch():
    with pytest.raises(ValueError, match="'cnn' has none: train it with watched_parts"):
        match_familiar({"cnn": []})
