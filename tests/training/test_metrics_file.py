"""metrics.csv as it is read: whole, or refused in one line."""

import pytest

from matcaps.training.record import read_metrics, write_metrics


def test_what_was_written_is_read(tmp_path):
    rows = [{"epoch": 1, "step": 5, "train/loss": 0.5}, {"epoch": 2, "step": 10, "validation/loss": float("nan")}]
    write_metrics(tmp_path / "metrics.csv", rows)
    assert read_metrics(tmp_path / "metrics.csv") == [
        {"epoch": "1", "step": "5", "train/loss": "0.5", "validation/loss": ""},
        {"epoch": "2", "step": "10", "train/loss": "", "validation/loss": "nan"},
    ]


def test_no_file_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.csv") == []


@pytest.mark.parametrize(
    "text",
    [
        "step,train/loss\n1,0.5\n",
        "epoch,step\none,5\n",
        "epoch,step\n1\n",
        "epoch,step\n1,5,0.5\n",
        "epoch,step,a\n1,5,x\n",
    ],
)
def test_what_is_no_table_of_numbers_is_refused(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv must be a table of numbers .* one row an epoch"):
        read_metrics(tmp_path / "metrics.csv")
