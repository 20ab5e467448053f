"""The command, as far as no browser is needed: bad input."""

import socket
import sys

import pytest

from matcaps import cli
from matcaps.training import train
from tests.support.runs import TINY_CNN, tiny_settings


def refused(capsys, *arguments: object) -> str:
    assert cli.main(["demo", *map(str, arguments)]) == 1
    printed, complaint = capsys.readouterr()
    assert printed == ""
    assert complaint.startswith("matcaps demo: ")
    assert len(complaint.splitlines()) <= 2
    return complaint


def test_without_gradio_the_extra_is_named(capsys, monkeypatch, digits):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "matcaps.demo.app", raising=False)
    assert 'pip install "matcaps[demo]"' in refused(capsys, digits)
    assert "port must be from 1 to 65535; got 70000" in refused(capsys, digits, "--port=70000")


@pytest.fixture
def app():
    pytest.importorskip("gradio", reason='no Gradio: pip install "matcaps[demo]", or make test-browser')
    from matcaps.demo import app

    return app


def test_bad_networks(app, capsys, digits, tmp_path):
    assert "no saved model at nowhere" in refused(capsys, "nowhere")
    assert "is not a capsule network for smallNORB" in refused(capsys, digits, "--smallnorb", digits)
    cnn = train(tiny_settings(model=TINY_CNN, epochs=1), tmp_path / "cnn").folder
    assert "has no capsules to show: it is a BaselineCNN" in refused(capsys, cnn)


def test_bad_addresses(capsys, digits):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 cannot be used (" in refused(capsys, digits, "--port", port)
    assert "192.0.2.1 cannot be used" in refused(capsys, digits, "--host", "192.0.2.1")
    assert "no.such.host.invalid cannot be used" in refused(capsys, digits, "--host", "no.such.host.invalid")
