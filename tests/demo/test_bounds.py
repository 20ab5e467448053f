"""What a visitor may send, and how much of it."""

import asyncio

import pytest

from matcaps.demo import bounds
from matcaps.demo.bounds import BoundedRequests


def ask(page: BoundedRequests, path: str, parts: list[bytes], length: str | None = None) -> int:
    """The status of the answer to a request whose body comes in parts."""
    left = list(parts)
    answers = []

    async def receive():
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message):
        answers.append(message)

    headers = [] if length is None else [(b"content-length", length.encode())]
    asyncio.run(page({"type": "http", "path": path, "headers": headers}, receive, send))
    return answers[0]["status"]


@pytest.fixture
def read() -> list[bytes]:
    return []


@pytest.fixture
def page(read) -> BoundedRequests:
    async def app(scope, receive, send):
        more = True
        while more:
            message = await receive()
            read.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return BoundedRequests(app)


def test_a_large_body_is_refused_whatever_its_header_says(page, read):
    assert ask(page, "/gradio_api/queue/join", [b"x" * 1000] * 2000, "2000000") == 200
    read.clear()
    assert ask(page, "/gradio_api/queue/join", [b"x"], "2000001") == 413
    assert ask(page, "/gradio_api/queue/join", [b"x"], "-5") == 413
    assert ask(page, "/gradio_api/queue/join", [b"x"], "9" * 10_000) == 413
    assert read == []
    for length in (None, "5"):
        assert ask(page, "/gradio_api/queue/join", [b"x" * 1_000_000] * 100, length) == 413
    assert len(read) == 4


def test_an_upload_may_be_larger_and_all_of_an_hour_are_bounded(page, monkeypatch):
    ten = [b"x" * 1_000_000] * 10
    assert ask(page, "/gradio_api/upload", ten, "10000000") == 200
    assert ask(page, "/gradio_api/upload", ten, "12000000") == 413
    assert ask(page, "/gradio_api/upload", 2 * ten) == 413
    monkeypatch.setattr(bounds, "MAX_UPLOADS_AN_HOUR", 20_000_000)
    assert ask(page, "/gradio_api/upload", ten) == 429
    assert ask(page, "/gradio_api/queue/join", [b"x"]) == 200
    monkeypatch.setattr(bounds, "_HOUR", 0.0)
    assert ask(page, "/gradio_api/upload", ten) == 200
