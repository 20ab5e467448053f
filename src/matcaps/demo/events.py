"""How the page's events are answered."""

from typing import Any

# Without the queue an answer comes in its own request, in half the time.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
LIVE: dict[str, Any] = {
    **QUIET,
    "trigger_mode": "always_last",
}  # while one event is answered, only the latest one waits
