"""The fuzzer catches what it should; what it finds in the library, ``make fuzz`` says."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fuzz.__main__ import main
from tests.support.fuzz.planted import PLANTED, WORDS
from tests.support.fuzz.readers import readers

needs_atheris = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs Atheris: make fuzz")


def test_every_reader_reads_a_whole_file(tmp_path):
    for name, make in readers(tmp_path).items():
        if name == "kernels":  # it replaces the compiler, which other tests of this process need
            continue
        reader = make()
        path = tmp_path / reader.name
        path.write_bytes(reader.files[0])
        reader.read(path)


@needs_atheris
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_caught(name, tmp_path):
    command = [sys.executable, "-m", "tests.support.fuzz", name, "--seconds", "20", "--megabytes", "100"]
    command += ["--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 1, done.stdout
    assert f"failed: {name}" in done.stdout
    assert WORDS[name] in done.stdout


def test_an_unknown_reader_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz", "typo"])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert "there is no reader 'typo'; the readers are idx," in capsys.readouterr().err
