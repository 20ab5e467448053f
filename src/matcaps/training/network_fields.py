"""The fields of the networks' configurations as optional settings; imports no torch."""

import inspect
import re
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args

from matcaps.models.config import CONFIGS, EARLIER_IMPLEMENTATIONS, FROM_DATA

_Class = TypeVar("_Class", bound=type)


def network_fields(settings: _Class) -> _Class:
    """Add to a class, before it becomes a dataclass, every configuration's fields except those that depend on the data.

    Each may be None, the default, and its description in the class's docstring is that of the configuration. A
    field of two configurations is taken from the first.

    Args:
        settings: its docstring ends with the ``Args:`` of its own fields.
    """
    described = inspect.cleandoc(settings.__doc__ or "").splitlines()
    for config in CONFIGS.values():
        descriptions = _descriptions(config)
        for entry in fields(config):
            if entry.name in FROM_DATA or entry.name in settings.__annotations__:
                continue
            kind: Any = entry.type
            if entry.name == "implementation":  # also the names in files of earlier versions
                kind = Literal[(*get_args(kind), *EARLIER_IMPLEMENTATIONS)]
            settings.__annotations__[entry.name] = kind | None
            setattr(settings, entry.name, None)
            described.append(f"    {entry.name}: {descriptions.get(entry.name, '')}")
    settings.__doc__ = "\n".join(described) + "\n"
    return settings


def _descriptions(config: type) -> dict[str, str]:
    """The descriptions of attributes in a configuration's docstring, by name, in one line and without markup."""
    _, _, listed = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", listed, re.M)
    return {name: re.sub(r":\w+:|`", "", " ".join(text.split())) for name, text in entries}
