"""The fields of the networks' configurations as settings that may be left out; free of torch."""

import inspect
import re
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args

from matcaps.models.config import CONFIGS, EARLIER_IMPLEMENTATIONS, FROM_DATA

_Class = TypeVar("_Class", bound=type)


def network_fields(settings: _Class) -> _Class:
    """Give a class, before it is made a dataclass, every field of every network's configuration that data do not say.

    Each may be None, which it is by default, and is described in the class's docstring as in the configuration's. A
    setting that two configurations have is the first one's.

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
    """What a configuration's docstring says of its attributes, by name, in one line and without markup."""
    _, _, listed = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", listed, re.M)
    return {name: re.sub(r":\w+:|`", "", " ".join(text.split())) for name, text in entries}
