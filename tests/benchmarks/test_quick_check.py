"""The check that stands before figures of a GPU where there is no pytest."""

import pytest
import torch

from benchmarks import quick_check


def stand_in(spoil):
    """Every implementation is the reference; what stands for Triton's is spoilt."""
    gradients = quick_check.gradients

    def make(inputs, implementation, dtype, device, competition):
        found = gradients(inputs, "reference", dtype, device, competition)
        return [spoil(part) for part in found] if implementation == "triton" else found

    return make


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda part: part, 0),
        (lambda part: part * 1.001, 1),
        (lambda part: part * torch.nan, 1),
    ],
    ids=["right", "off", "nan"],
)
def test_wrong_results_are_seen(spoil, status, monkeypatch, capsys):
    monkeypatch.setattr(quick_check, "gradients", stand_in(spoil))
    assert quick_check.main() == status
    assert "largest error" in capsys.readouterr().out
