"""The check that stands before figures of a GPU where there is no pytest."""

import pytest
import torch

from benchmarks import quick_check
from matcaps.routing import conv_em_routing
from tests.support.budget import run


def stand_in(spoil):
    """What stands for the GPU path is the reference, spoilt."""

    def gpu_path(inputs, options):
        results = run(conv_em_routing, inputs, torch.float32, "reference", **options)
        return {name: spoil(part) for name, part in results.items()}

    return gpu_path


@pytest.mark.parametrize(
    ("spoil", "status", "said"),
    [
        (lambda part: part, 0, "within the budget"),
        (lambda part: part * 1.001, 1, "grad weight: errors are"),
        (lambda part: part * torch.nan, 1, "grad weight: errors are nan times"),
    ],
    ids=["right", "off", "nan"],
)
def test_wrong_results_are_seen(spoil, status, said, monkeypatch, capsys):
    monkeypatch.setattr(quick_check, "gpu_path", stand_in(spoil))
    assert quick_check.main() == status
    assert said in capsys.readouterr().out
