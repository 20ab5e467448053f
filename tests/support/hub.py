"""A stand-in for the Hugging Face hub, for its own client: repositories of models on this machine, in memory.

It answers what ``create_repo``, ``upload_folder``, ``file_exists`` and ``snapshot_download`` ask, as far as these
need it. Every file is sent inside its commit, as small ones are on the hub.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse


class Hub:
    """What is on it.

    Attributes:
        repositories: by name, the files of each after each commit, oldest first.
        tokens: that were shown.
        refuse: whether to refuse whoever wants to write.
    """

    def __init__(self):
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.tokens: set[str] = set()
        self.refuse = False
        self.address = ""


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve one; its ``address`` is what the variable HF_ENDPOINT wants."""
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"state": state}))
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commit_of(files: dict[str, bytes]) -> str:
    content = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())})
    return hashlib.sha1(content.encode()).hexdigest()


def blob_of(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Answers(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.state.tokens.add(self.headers.get("Authorization", ""))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlparse(self.path).path
        if path == "/api/validate-yaml":
            self.say({"errors": [], "warnings": []})
        elif self.state.refuse:
            self.say({"error": "You don't have the rights to create a model"}, 403)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            known = name in self.state.repositories
            self.state.repositories.setdefault(name, [{}])
            self.say({"url": f"{self.state.address}/{name}", "name": name}, 409 if known else 200)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            entries = json.loads(body)["files"]
            files = [{"path": entry["path"], "uploadMode": "regular", "shouldIgnore": False} for entry in entries]
            self.say({"files": files})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            commits = self.state.repositories[match[1]]
            commits.append(_changed(commits[-1], body))
            oid = commit_of(commits[-1])
            self.say({"commitUrl": f"{self.state.address}/{match[1]}/commit/{oid}", "commitOid": oid, "success": True})
        else:
            self.say({"error": f"the stand-in does not know {path}"}, 501)

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main|/tree/\w+)?", path)
        if match and match[1] in self.state.repositories:
            files = self.state.repositories[match[1]][-1]
            if match[2] and match[2].startswith("/tree"):
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": blob_of(data)}
                    for name, data in files.items()
                ]
                self.say(tree)
            else:
                siblings = [{"rfilename": name} for name in files]
                self.say({"id": match[1], "sha": commit_of(files), "siblings": siblings, "private": False, "tags": []})
            return
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path)
        if match is None or match[1] not in self.state.repositories:
            self.say({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        for files in self.state.repositories[match[1]][::-1]:
            if match[2] in ("main", commit_of(files)):
                if match[3] not in files:
                    self.say({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
                    return
                data = files[match[3]]
                self.send(data, 200, {"X-Repo-Commit": commit_of(files), "ETag": f'"{blob_of(data)}"'})
                return
        self.say({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def say(self, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(answer).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _changed(files: dict[str, bytes], commit: bytes) -> dict[str, bytes]:
    """A repository's files after a commit: one JSON object a line."""
    after = dict(files)
    for line in commit.splitlines():
        entry = json.loads(line)
        if entry["key"] == "file":
            after[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        elif entry["key"] == "deletedFile":
            del after[entry["value"]["path"]]
    return after
