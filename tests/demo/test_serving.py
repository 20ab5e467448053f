"""What the served page lets others do: what it takes, what it gives away, and who can reach it."""

import os
import re
import signal
import socket
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from matcaps.demo.ports import is_open_to_others

SESSION = "somebody"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(digits, place):
    """The command's own process, as its users start it."""
    pytest.importorskip("gradio", reason='no Gradio: pip install "matcaps[demo]", or make test-browser')
    process, line = start(digits, place)
    yield address(line)
    stop(process)


def start(digits: Path, place: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    environment = os.environ | {"GRADIO_TEMP_DIR": str(place / "uploads"), "COLUMNS": "300"}
    command = [sys.executable, "-m", "matcaps.cli", "demo", str(digits), "--no_browser", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, process.stdout.readline()


def stop(process: "subprocess.Popen[str]") -> str:
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)[1]


def address(line: str) -> str:
    found = re.search(r"http://\S+", line)
    assert found is not None, line
    return found[0]


@pytest.fixture
def ask(served):
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=served, timeout=60) as client:
        yield client


def picture() -> bytes:
    content = BytesIO()
    Image.new("L", (40, 40), 200).save(content, "PNG")
    return content.getvalue()


def take(ask, path: str):
    """Have the page read a file at a path, as after an upload."""
    config = ask.get("/config").json()
    upload = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "upload")
    function = next(one["id"] for one in config["dependencies"] if [upload, "upload"] in one["targets"])
    file = {"path": path, "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
    content = {"data": [file, False, 1], "fn_index": function, "session_hash": SESSION}
    return ask.post("/gradio_api/run/predict", json=content)


def test_an_upload_is_bounded_and_stays_in_its_folder(ask, place):
    name = "../../../evil.png"
    answer = ask.post("/gradio_api/upload", files={"files": (name, picture(), "image/png")})
    assert answer.status_code == 200
    (kept,) = answer.json()
    assert Path(kept).resolve().is_relative_to((place / "uploads").resolve())
    assert take(ask, kept).status_code == 200
    before = {path for path in place.rglob("*") if path.is_file()}
    answer = ask.post("/gradio_api/upload", files={"files": ("large.png", bytes(11_000_000), "image/png")})
    assert answer.status_code == 413
    assert {path for path in place.rglob("*") if path.is_file()} == before
    assert not list(place.parent.rglob("evil.png"))[1:]


def test_a_request_is_bounded(ask):
    """Found by trying: sixty megabytes of JSON were read, and took 400 MB and a minute."""
    for path in ("/gradio_api/run/predict", "/gradio_api/queue/join"):
        answer = ask.post(path, content=b"[" * 2_000_001, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        answer = ask.post(path, content=b"[" * 1_000_000, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code <= 500


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../../../../etc/passwd", "uploads/../../digits/config.json", "own"]
)
def test_no_file_of_the_machine_is_given_away(path, ask, digits):
    path = str(digits / "config.json") if path == "own" else path
    for way in (path, quote(path, safe="")):
        for place in (f"/gradio_api/file={way}", f"/file={way}", f"/static/{way}", f"/assets/{way}"):
            answer = ask.get(place)
            assert answer.status_code in (403, 404), place
            assert "root:" not in answer.text
            assert "architecture" not in answer.text
    refused = take(ask, path)
    assert refused.status_code != 200
    assert "root:" not in refused.text


def test_the_server_asks_nobody_else(ask):
    """An address in place of an upload: it would be asked from inside the server's network."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(1)
        url = f"http://127.0.0.1:{other.getsockname()[1]}/x.png"
        assert take(ask, url).status_code != 200
        for way in (url, quote(url, safe="")):
            assert ask.get(f"/gradio_api/file={way}").status_code != 200
            assert ask.get(f"/proxy={way}").status_code != 200
        with pytest.raises(TimeoutError):
            other.accept()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_only_this_machine_reaches_it(served):
    port = int(served.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 5):
        pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), 5)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_what_is_open_to_others_is_said_at_the_start(digits, tmp_path, served):
    process, line = start(digits, tmp_path, "--host", "0.0.0.0")
    port = int(address(line).rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.2", port), 5):
        pass
    (complaint,) = [one for one in stop(process).splitlines() if "warning" in one]
    assert complaint.startswith("matcaps demo: warning: 0.0.0.0 is open to other machines: everybody who can reach")
    assert complaint.endswith("there is no password")


def test_who_reaches_an_address():
    assert [is_open_to_others(host) for host in ("127.0.0.1", "localhost", "0.0.0.0")] == [False, False, True]
