"""The command, for every test that runs it."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Every test in an empty folder of its own, and with no data sets around."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("MATCAPS_DATA", str(tmp_path / "no-data"))


@pytest.fixture
def call(capsys):
    """Run the command in this process; return its status, what it printed and what it complained of."""

    from matcaps import cli  # some tests run on a machine that lacks what the command needs

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """What an inspection plots is written as pictures of one pixel: to draw it takes most of an inspection's time.

    For tests of what an inspection says and which files it leaves; ``tests/test_cli_inspect.py`` and
    ``tests/documents`` have every figure drawn.
    """
    from matcaps.inspect import writer

    def write(figure, path: Path) -> list[Path]:
        png, svg = (path.with_name(f"{path.name}.{ending}") for ending in ("png", "svg"))
        Image.new("L", (1, 1)).save(png)
        svg.write_text("<svg/>")
        return [png, svg]

    monkeypatch.setattr(writer, "save_figure", write)


@pytest.fixture
def refuse(call):
    """Run the command; it must fail in one line that holds a text, and leave nothing behind."""

    def run(text: str, *arguments: object) -> str:
        before = sorted(Path.cwd().rglob("*"))
        status, printed, complaint = call(*arguments)
        assert status in (1, 2)
        assert printed == ""
        lines = [line for line in complaint.splitlines() if not line.startswith("matcaps 0.")]
        assert len(lines) == 1, complaint
        assert lines[0].startswith("matcaps")
        assert text in lines[0]
        assert "Traceback" not in complaint
        assert sorted(Path.cwd().rglob("*")) == before
        return lines[0]

    return run
