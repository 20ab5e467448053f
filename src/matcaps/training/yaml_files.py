"""Read YAML files that may come from strangers: a few characters of YAML can stand for more than any memory holds."""

from pathlib import Path
from typing import Any

import yaml

from matcaps._paths import named_errors
from matcaps.models.files import MOST_NESTED, check_plain

MOST_CHARACTERS = 200_000
"""Of a file, every alias counted as what it stands for; the settings of a run have 2,300."""

# The one in C, where PyYAML has it, is eight times faster, but a deeply nested file would end the process.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values.

    Args:
        path: the file, which must exist.

    Raises:
        OSError: it cannot be read; the error always has a path.
        ValueError: it is not YAML; has a value that its type does not allow, such as a date with a thirteenth month; is
            nested more than :data:`matcaps.models.files.MOST_NESTED` deep; has more than :data:`MOST_CHARACTERS`; or a
            whole number in it has more than 64 bits.
    """
    with named_errors(path), path.open("rb") as file:
        content = file.read(4 * MOST_CHARACTERS + 1)
    try:
        values = parse_yaml(content.decode("utf-8"))
    except Exception as error:  # what makes values of texts raises nearly anything
        raise ValueError(f"{path} is not YAML: {error}") from error
    check_plain(path, values)
    return values


def parse_yaml(text: str) -> Any:
    """The plain values of a YAML text; errors are of many kinds, and do not name a file."""
    _check_size(text)
    return yaml.load(text, _LOADER)


def _check_size(text: str) -> None:
    """Refuse what is too large or too deep, before anything is made of it."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it must have at most {MOST_CHARACTERS:,} characters")
    sizes: dict[str, int] = {}
    unclosed: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            unclosed.append((event.anchor, total))
            if len(unclosed) > MOST_NESTED:
                raise ValueError(f"it must nest at most {MOST_NESTED} deep")
            continue
        if isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value)
            anchor = event.anchor
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} stands for nothing above it")
            size, anchor = sizes[event.anchor], None
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = unclosed.pop()
            size = 1
            if anchor is not None:
                sizes[anchor] = total + size - before
        else:
            continue
        total += size
        if isinstance(event, yaml.ScalarEvent) and anchor is not None:
            sizes[anchor] = size
        if total > MOST_CHARACTERS:
            raise ValueError(
                f"it must have at most {MOST_CHARACTERS:,} characters, aliases counted as what they stand for"
            )
