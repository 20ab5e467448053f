"""The check that stands before figures of a GPU where there is no pytest."""

import json

import pytest
import torch

from benchmarks.gpu import quick_check
from tests.support.budget import run


def stand_in(spoil):
    """What stands for the GPU path is the reference, spoilt."""

    def gpu_path(function, inputs, options, dtype=torch.float32):
        results = run(function, inputs, dtype, "reference", **options)
        return {name: spoil(part, dtype) for name, part in results.items()}

    return gpu_path


def only_in(dtype, factor):
    return lambda part, other: part * factor if dtype == other else part


@pytest.mark.parametrize(
    ("spoil", "status", "said"),
    [
        (lambda part, _: part, 0, "within the budget"),
        (only_in(torch.float32, 1.001), 1, "grad weight: errors are"),
        (only_in(torch.float64, 1.00001), 1, "grad weight in float64 is off"),
        (lambda part, _: part * torch.nan, 1, "grad weight: errors are nan times"),
        (
            lambda part, _: part * (1 + 1e-12 * torch.rand((), dtype=torch.float64)),
            1,
            "grad weight: not the same bits twice",
        ),
    ],
    ids=["right", "off", "off in float64", "nan", "changing"],
)
def test_wrong_results_are_seen(spoil, status, said, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(quick_check, "gpu_path", stand_in(spoil))
    monkeypatch.setattr(quick_check, "class_cases", lambda: [])
    monkeypatch.setattr(quick_check, "conv_cases", lambda conv=quick_check.conv_cases: conv()[::3])
    record = tmp_path / "record.json"
    assert quick_check.main([f"--record={record}"]) == status
    assert said in capsys.readouterr().out
    assert len(json.loads(record.read_text())["check"]["complaints"]) >= status


def test_cases_cover_what_the_kernels_are_compiled_for():
    conv, classes = quick_check.conv_cases(), quick_check.class_cases()
    assert len(conv) == len(classes) == 16
    assert {(o["competition"], o["activation_rule"]) for _, o in conv} == {
        (competition, rule) for competition in quick_check.COMPETITIONS for rule in quick_check.RULES
    }
    assert {o["activation_rule"] for _, o in classes} == set(quick_check.RULES)
    assert all(len(inputs) == 7 for inputs, _ in classes)  # with coordinates
