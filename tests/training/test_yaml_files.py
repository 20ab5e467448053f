"""YAML of strangers: read as plain values, or refused in one line that names the file."""

import time

import pytest
import yaml

from matcaps.training import yaml_files
from matcaps.training.record import read_settings
from matcaps.training.settings import TrainSettings
from matcaps.training.yaml_files import read_yaml

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}, *a{i}, *a{i}]}}\n" for i in range(40))
LONG = "a: &a " + "x" * 50_000 + "\nb: [" + "*a, " * 10_000 + "*a]\n"

pytestmark = pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 500, "must nest at most 100 deep"),
        ("a: " + "[" * 50_000 + "]" * 50_000, "must nest at most 100 deep"),
        ("- " * 20_000, "must nest at most 100 deep"),
        ("".join(" " * depth + "a:\n" for depth in range(600)), "must nest at most 100 deep"),
        (LAUGHS, "must have at most 200,000 characters, aliases counted as what they stand for"),
        (MERGES, "must have at most 200,000 characters, aliases counted"),
        (LONG, "must have at most 200,000 characters, aliases counted"),
        ("a: " + "x " * 100_000, "must have at most 200,000 characters"),
        ("a: &a [*a]", r"\*a stands for nothing above it"),
        ("a: *b", r"\*b stands for nothing above it"),
        ("epochs: " + "9" * 5000, "4300"),
        ("epochs: 2026-13-45", "month must be in 1..12"),
        ("epochs: 1:" + "1:" * 900 + "1.5", "too large"),
        ("epochs: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("? [a]\n: b", "unhashable key"),
    ],
)
def test_what_cannot_be_read_is_refused_at_once(text, reason, loader, tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_files, "_LOADER", loader)
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ValueError, match=rf"settings\.yaml is not YAML: (.|\n)*{reason}"):
        read_settings(path)
    assert time.process_time() - began < 2


def test_numbers_that_nothing_can_hold(loader, tmp_path, monkeypatch):
    """Found by fuzzing: a whole number of 4,200 digits was an OverflowError."""
    monkeypatch.setattr(yaml_files, "_LOADER", loader)
    path = tmp_path / "settings.yaml"
    for large in (2**64, -(2**63) - 1, 10**4200):
        path.write_text(f"model: {{implementation: [{large}]}}")
        with pytest.raises(ValueError, match=r"settings\.yaml must have whole numbers of at most 64 bits; got one of"):
            read_settings(path)
    path.write_text(f"seed: {2**64 - 1}")
    assert read_settings(path) == {"seed": 2**64 - 1}


def test_anchors_are_read(loader, tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_files, "_LOADER", loader)
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, z: *a}\nc: &c word\nd: [*c, *c]\n")
    first = {"x": 1, "y": [2, 3]}
    assert read_yaml(path) == {"a": first, "b": {**first, "z": first}, "c": "word", "d": ["word", "word"]}
    whole = yaml.safe_dump(TrainSettings().to_dict(), sort_keys=False)
    path.write_text(whole)
    assert read_yaml(path) == yaml.safe_load(whole)
