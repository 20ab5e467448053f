"""How much the page takes from its visitors; no import of Gradio."""

import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MAX_BODY = 2_000_000
"""Bytes of a request that uploads nothing; a drawing of the most points that are taken has less than one million."""

MAX_UPLOAD_BODY = 11_000_000
"""Bytes of an upload with its frame; Gradio refuses files of more than 10 million."""

MAX_UPLOADS_AN_HOUR = 1_000_000_000
"""Bytes of all uploads together, which stay on the disk for an hour."""

_HOUR = 3600.0

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class _TooLargeError(Exception):
    """A body has more bytes than are taken, whatever its header said."""


class BoundedRequests:
    """ASGI middleware that refuses requests which would fill memory or disk.

    Args:
        app: the application behind it.
    """

    def __init__(self, app: Callable[[_Message, _Receive, _Send], Awaitable[None]]):
        self._app = app
        self._uploads: deque[tuple[float, int]] = deque()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer 413 to a body that is too large, and 429 to uploads while there are too many."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/").endswith("/upload")
        most = MAX_UPLOAD_BODY if is_upload else MAX_BODY
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > most:
            await _refuse(send, 413)
            return
        if is_upload and self._uploaded() > MAX_UPLOADS_AN_HOUR:
            await _refuse(send, 429)
            return
        taken, has_begun = 0, False

        async def bounded() -> _Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise _TooLargeError
            return message

        async def noted(message: _Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, bounded, noted)
        except _TooLargeError:
            if not has_begun:
                await _refuse(send, 413)
        finally:
            if is_upload:
                self._uploads.append((time.monotonic(), taken))

    def _uploaded(self) -> int:
        """Bytes in the last hour."""
        while self._uploads and self._uploads[0][0] < time.monotonic() - _HOUR:
            self._uploads.popleft()
        return sum(size for _, size in self._uploads)


async def _refuse(send: _Send, status: int) -> None:
    text = b"Too large." if status == 413 else b"Too many uploads: try again in an hour."
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
