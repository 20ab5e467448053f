"""Downloads from a server of our own on this machine: every way in which a mirror can fail."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import os
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from matcaps.data import SOURCES, DownloadError, fetch, missing_files, verify
from matcaps.data import download as download_module
from matcaps.data.sources import Archive, DataFile, DataSource, get_source

CONTENT = bytes(range(256)) * 4000
PACKED = gzip.compress(CONTENT, 0, mtime=0)


@dataclass
class Server:
    """A bounded server: what each path answers, and what it was asked."""

    url: str
    bodies: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    has_ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    status: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "TIMEOUT", 5.0)
    state: Server

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self):
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            body = state.bodies.get(self.path)
            if body is None or self.path in state.status:
                self.send_error(state.status.get(self.path, 404))
                return
            start = 0
            if wanted and state.has_ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            sent = body[start:]
            if state.break_after:
                sent = sent[: state.break_after.pop(0)]
            with contextlib.suppress(ConnectionError):
                self.wfile.write(sent)

        def log_message(self, *arguments):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    state = Server(f"http://127.0.0.1:{httpd.server_address[1]}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join(5)


def source_of(server: Server, *mirrors: str, archive: Archive | None = None) -> DataSource:
    file = DataFile(
        name="letters.gz",
        size=len(PACKED),
        sha256=hashlib.sha256(PACKED).hexdigest(),
        content_size=len(CONTENT),
        content_md5=hashlib.md5(CONTENT).hexdigest(),
        urls=tuple(f"{server.url}/{mirror}/letters.gz" for mirror in mirrors),
        archive=archive,
    )
    return DataSource("mine", "Letters", "free", (file,))


@pytest.fixture
def get(tmp_path) -> Callable:
    def get(source, **options):
        (status,) = fetch("mine", tmp_path, source=source, **options)
        assert status.state == "ok"
        return status.path

    return get


def test_whole_file_with_progress(server, get, tmp_path):
    server.bodies = {"/a/letters.gz": PACKED}
    seen = []
    path = get(source_of(server, "a", "b"), progress=lambda *report: seen.append(report))
    assert path.read_bytes() == PACKED
    assert sorted(entry.name for entry in (tmp_path / "mine").iterdir()) == ["letters.gz"]
    assert seen[0] == ("letters.gz", 0, len(PACKED))
    assert seen[-1] == ("letters.gz", len(PACKED), len(PACKED))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    # A file that is there is not asked for again.
    get(source_of(server, "a", "b"))
    assert len(server.requests) == 1


def test_the_next_mirror_when_one_fails(server, get):
    server.bodies = {"/c/letters.gz": PACKED, "/b/letters.gz": PACKED}
    server.status = {"/b/letters.gz": 503}
    get(source_of(server, "a", "b", "c"))
    assert [path for path, _ in server.requests] == ["/a/letters.gz", "/b/letters.gz", "/c/letters.gz"]


def test_a_mirror_that_cannot_be_reached(server, get):
    server.bodies = {"/a/letters.gz": PACKED}
    source = source_of(server, "a")
    (file,) = source.files
    unreachable = DataFile(**{**vars(file), "urls": ("http://127.0.0.1:9/letters.gz", *file.urls)})
    get(DataSource("mine", "", "", (unreachable,)))


def test_all_failures_are_told(server, tmp_path):
    server.bodies = {"/b/letters.gz": PACKED[:-1] + b"!"}
    with pytest.raises(DownloadError) as caught:
        fetch("mine", tmp_path, source=source_of(server, "a", "b"))
    message = str(caught.value)
    assert "letters.gz could not be downloaded from any mirror" in message
    assert "/a/letters.gz: the server answered 404" in message
    assert "/b/letters.gz: expected" in message
    assert "sha256" in message
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_full_disk_is_no_mirrors_fault(server, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download_module, "_chunks", full)
    server.bodies = {"/a/letters.gz": PACKED, "/b/letters.gz": PACKED}
    with pytest.raises(OSError, match="No space left on device") as error:
        fetch("mine", tmp_path, source=source_of(server, "a", "b"))
    assert error.value.filename == str(tmp_path / "mine" / "letters.gz.partial")
    assert not (tmp_path / "mine" / "letters.gz").exists()


def test_a_corrupted_body_is_thrown_away(server, get):
    server.bodies = {"/a/letters.gz": PACKED[:500] + b"!" + PACKED[501:], "/b/letters.gz": PACKED}
    assert get(source_of(server, "a", "b")).read_bytes() == PACKED


@pytest.mark.parametrize("body", [PACKED + b"more", PACKED[:-1], b"", b"<html>not found</html>"])
def test_a_body_of_another_length(server, get, body):
    server.bodies = {"/a/letters.gz": body, "/b/letters.gz": PACKED}
    assert get(source_of(server, "a", "b")).read_bytes() == PACKED


def test_goes_on_where_it_broke_off(server, get):
    """At the same mirror while that brings something, then at the next."""
    server.bodies = {"/a/letters.gz": PACKED, "/b/letters.gz": PACKED}
    server.break_after = [300_000, 100_000, 0]
    get(source_of(server, "a", "b"))
    assert server.requests == [
        ("/a/letters.gz", None),
        ("/a/letters.gz", "bytes=300000-"),
        ("/a/letters.gz", "bytes=400000-"),
        ("/b/letters.gz", "bytes=400000-"),
    ]


def test_what_arrived_is_kept_when_all_mirrors_break_off(server, get, tmp_path):
    server.bodies = {"/a/letters.gz": PACKED}
    server.break_after = [1000] * 5
    with pytest.raises(DownloadError, match=r"it broke off after 5,000 of .* bytes"):
        fetch("mine", tmp_path, source=source_of(server, "a"))
    assert (tmp_path / "mine" / "letters.gz.partial").stat().st_size == 5000
    assert get(source_of(server, "a")).read_bytes() == PACKED
    assert server.requests[-1] == ("/a/letters.gz", "bytes=5000-")


def test_goes_on_at_the_next_call(server, get, tmp_path):
    server.bodies = {"/a/letters.gz": PACKED}
    partial = tmp_path / "mine" / "letters.gz.partial"
    partial.parent.mkdir()
    partial.write_bytes(PACKED[:123_456])
    seen = []
    get(source_of(server, "a"), progress=lambda *report: seen.append(report[1]))
    assert server.requests == [("/a/letters.gz", "bytes=123456-")]
    assert seen[0] == 123_456
    assert not partial.exists()


def test_a_whole_partial_file_needs_no_mirror(server, get, tmp_path):
    partial = tmp_path / "mine" / "letters.gz.partial"
    partial.parent.mkdir()
    partial.write_bytes(PACKED)
    get(source_of(server, "a"))
    assert server.requests == []


def test_a_server_without_ranges_starts_again(server, get, tmp_path):
    server.bodies, server.has_ranges = {"/a/letters.gz": PACKED}, False
    partial = tmp_path / "mine" / "letters.gz.partial"
    partial.parent.mkdir()
    partial.write_bytes(PACKED[:1000])
    assert get(source_of(server, "a")).read_bytes() == PACKED
    assert server.requests == [("/a/letters.gz", "bytes=1000-")]


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(PACKED), b"x" * (len(PACKED) + 5)])
def test_a_spoilt_partial_file_does_not_spoil_the_next_call(server, get, tmp_path, left):
    server.bodies = {"/a/letters.gz": PACKED}
    partial = tmp_path / "mine" / "letters.gz.partial"
    partial.parent.mkdir()
    partial.write_bytes(left)
    assert get(source_of(server, "a")).read_bytes() == PACKED


def test_good_files_are_never_touched(server, get, tmp_path):
    (tmp_path / "mine").mkdir()
    for name, content in (("letters", CONTENT), ("letters.gz", gzip.compress(CONTENT, 9))):
        path = tmp_path / "mine" / name
        path.write_bytes(content)
        before = path.stat()
        assert get(source_of(server, "a")) == path
        assert path.stat() == before
        path.unlink()
    assert server.requests == []


def test_a_file_that_differs_stays_unless_told_otherwise(server, tmp_path):
    server.bodies = {"/a/letters.gz": PACKED}
    mine = tmp_path / "mine" / "letters"
    mine.parent.mkdir()
    mine.write_bytes(b"my own letters")
    source = source_of(server, "a")
    with pytest.warns(UserWarning, match="is not the published file .* stays as it is"):
        (status,) = fetch("mine", tmp_path, source=source)
    assert status.state == "differs"
    assert mine.read_bytes() == b"my own letters"
    assert server.requests == []
    (status,) = fetch("mine", tmp_path, source=source, replace_different=True)
    assert (status.state, status.path) == ("ok", tmp_path / "mine" / "letters.gz")


def zip_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_contents_from_a_zip_file_as_a_last_resort(server, get, tmp_path):
    archive = Archive(f"{server.url}/all.zip", "all.zip", 10_000_000)
    server.bodies = {"/all.zip": zip_of({"some/where/letters": CONTENT, "other": b"x"})}
    path = get(source_of(server, "a", archive=archive))
    assert path.read_bytes() == CONTENT
    assert sorted(entry.name for entry in (tmp_path / "mine").iterdir()) == ["letters"]


def test_what_the_zip_file_replaced_is_not_removed_again(server, tmp_path):
    """The good file comes to where the differing one lay."""
    archive = Archive(f"{server.url}/all.zip", "all.zip", 10_000_000)
    server.bodies = {"/all.zip": zip_of({"letters": CONTENT})}
    mine = tmp_path / "mine" / "letters"
    mine.parent.mkdir()
    mine.write_bytes(b"my own letters")
    (status,) = fetch("mine", tmp_path, source=source_of(server, "a", archive=archive), replace_different=True)
    assert (status.state, status.path) == ("ok", mine)
    assert mine.read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["../../letters", "/letters", "a/../../../letters"])
def test_a_name_in_a_zip_file_leaves_no_folder(server, get, tmp_path, name):
    archive = Archive(f"{server.url}/all.zip", "all.zip", 10_000_000)
    server.bodies = {"/all.zip": zip_of({"../../evil": b"x", name: CONTENT})}
    assert get(source_of(server, "a", archive=archive)).read_bytes() == CONTENT
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "mine" / "letters"]


@pytest.mark.parametrize("link", ["letters.gz.partial", "all.zip.partial", "letters.partial"])
def test_a_link_in_a_strangers_folder_has_nothing_written_over(server, get, tmp_path, link):
    """Found by trying: what the link named was replaced by what was downloaded."""
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / link).symlink_to(tmp_path / "precious")
    archive = Archive(f"{server.url}/all.zip", "all.zip", 10_000_000)
    server.bodies = {"/all.zip": zip_of({"letters": CONTENT})}
    if link == "letters.gz.partial":
        server.bodies = {"/a/letters.gz": PACKED}
    get(source_of(server, "a", archive=archive))
    assert (tmp_path / "precious").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (zip_of({"other": CONTENT}), "does not hold letters"),
        (zip_of({"letters": CONTENT[:-1]}), "checksum differs"),
        (zip_of({"letters": CONTENT + b"!"}), "checksum differs"),
        (zip_of({"letters": b"!" + CONTENT[1:]}), "checksum differs"),
        (b"not a zip file", "not a zip file"),
        (zip_of({"letters": CONTENT})[:-40], "not a zip file"),
        (b"x" * 20_000_000, "expected at most 10,000,000 bytes"),
    ],
)
def test_a_wrong_zip_file_is_refused_and_taken_away(server, tmp_path, body, reason):
    archive = Archive(f"{server.url}/all.zip", "all.zip", 10_000_000)
    server.bodies = {"/all.zip": body}
    with pytest.raises(DownloadError, match=reason):
        fetch("mine", tmp_path, source=source_of(server, "a", archive=archive))
    assert list((tmp_path / "mine").iterdir()) == []


def test_unknown_names(tmp_path):
    for function in (fetch, verify):
        with pytest.raises(ValueError, match="name must be one of mnist, fashion-mnist, smallnorb; got 'cifar'"):
            function("cifar", tmp_path)


def test_verify_states(mnist_root):
    (mnist_root / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
    assert missing_files("mnist", mnist_root) == ["train-labels-idx1-ubyte.gz"]
    (mnist_root / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b\x08 broken")
    statuses = {status.name: status for status in verify("mnist", mnist_root)}
    assert statuses["train-labels-idx1-ubyte.gz"].state == "missing"
    assert statuses["train-images-idx3-ubyte.gz"].state == "differs"
    assert "published 6bbc9ace" in statuses["train-images-idx3-ubyte.gz"].detail
    assert "damaged" in statuses["t10k-labels-idx1-ubyte.gz"].detail


def test_published_sources_are_complete():
    for source in SOURCES.values():
        assert source.terms
        names = [file.name for file in source.files]
        assert len(set(names)) == len(names) == {"smallnorb": 6}.get(source.name, 4)
        for file in source.files:
            assert len(file.urls) + bool(file.archive) >= 2
            assert all(url.endswith(f"/{file.name}") for url in file.urls)
            assert len(file.sha256) == 64
            assert len(file.content_md5) == 32
            assert file.name.endswith(".gz")
            assert file.content_size > 10_000


def test_real_files(real_root):
    assert {status.state for status in verify("mnist", real_root)} == {"ok"}
    states = {status.name: status.state for status in verify("smallnorb", real_root)}
    assert set(states) == {file.name for file in get_source("smallnorb").files}
    assert [state for name, state in states.items() if name.endswith("cat.mat.gz")] == ["ok", "ok"]
