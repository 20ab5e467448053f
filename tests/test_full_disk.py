"""What cannot be written is said in one line with its path, leaves nothing half-written, and can be done again."""

import errno
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from matcaps import cli
from matcaps.inspect.numbers import save_arrays
from matcaps.inspect.style import save_figure
from matcaps.models.files import whole_file
from matcaps.training import train
from matcaps.training.record import write_json, write_text
from tests.support.runs import tiny_settings, write_config
from tests.support.warm import WarmCommand


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_written_stays_as_it_was_and_is_named(number, tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(OSError, match=r"file\.json") as error, whole_file(path) as partial:  # noqa: PT012
        partial.write_text("half")
        raise OSError(number, os.strerror(number))
    assert (error.value.errno, error.value.filename) == (number, str(path))
    assert [one.name for one in tmp_path.iterdir()] == ["file.json"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("write", ["text", "json", "arrays", "figure"])
def test_every_writer_leaves_nothing_half_written(write, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "out"
    with pytest.raises(OSError, match=r"No space left on device: '.*out"):
        {
            "text": lambda: write_text(path, "x"),
            "json": lambda: write_json(path, {}),
            "arrays": lambda: save_arrays(path, {"a": 1.0}),
            "figure": lambda: save_figure(Figure(), path),
        }[write]()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [500, 3000, 20_000])
def test_a_training_that_runs_out_of_room_says_so_in_one_line_and_goes_on_later(size, tmp_path):
    """A limit on a file's size stands for the full disk: settings, TensorBoard's thread, and a checkpoint meet it."""
    settings = tiny_settings(epochs=1)
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    command = WarmCommand("train", write_config(settings, tmp_path), "--output=run", folder=tmp_path, prepare=limit)
    assert command.wait(timeout=120) == 1
    assert "Traceback" not in command.errors
    lines = [line for line in command.errors.splitlines() if not line.startswith("matcaps 0.")]
    assert len(lines) == 1, command.errors
    assert lines[0].startswith("matcaps train: ")
    assert "run" in lines[0]
    assert "File too large" in lines[0]
    assert not list(tmp_path.rglob("*.partial"))
    resume = (tmp_path / "run" / "settings.yaml").is_file()
    assert train(settings, tmp_path / "run", resume=resume).test is not None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_output_to_a_full_disk_is_no_success():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "matcaps.cli", "models"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr == "matcaps models: standard output: No space left on device: free some space\n"


def test_an_error_of_another_kind_without_a_path_is_said_as_it_is(monkeypatch, capsys):
    def fail(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setitem(cli.COMMANDS, "train", fail)
    assert cli.main(["train"]) == 1
    assert capsys.readouterr().err == "matcaps train: Too many open files\n"
