"""Mutations that keep a file's form, so that what is behind the form's own checks is reached, too."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

import yaml

from matcaps.training.yaml_files import parse_yaml


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 1.5, 1e300, -0.0, float("inf"), float("nan"), 2**31, 2**63, 10**40, 10**5),
    *("", "x", "\0", "\x1b[31m", "../..", "/", "é\n", "name", [], {}, [[]], {"": 0}, [0] * 1000, "9" * 5000),
    *(_nested(50), _nested(300), 10**4200),
)


# In C where PyYAML has it: much faster, and more files are tried.
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def json_text(content: bytes, chance: random.Random, _: Callable[[bytes], bytes]) -> bytes:
    """Change one value, name or entry of a JSON file."""
    return json.dumps(_changed(json.loads(content), chance)).encode()


def yaml_text(content: bytes, chance: random.Random, _: Callable[[bytes], bytes]) -> bytes:
    """Change one value, name or entry of a YAML file."""
    changed = _changed(parse_yaml(content.decode()), chance)
    return yaml.dump(changed, Dumper=_DUMPER, sort_keys=False).encode()


def table(content: bytes, chance: random.Random, _: Callable[[bytes], bytes]) -> bytes:
    """Change one cell of a table, or its lines."""
    rows = [line.split(",") for line in content.decode().split("\n")]
    row = chance.choice(rows)
    what = chance.randrange(4)
    if what == 0:
        row[chance.randrange(len(row))] = str(chance.choice(_VALUES))
    elif what == 1:
        row.append(str(chance.choice(_VALUES)))
    elif what == 2:
        rows.insert(chance.randrange(len(rows)), list(row))
    else:
        rows.remove(row)
    return "\n".join(",".join(row) for row in rows).encode()


def safetensors(content: bytes, chance: random.Random, mutate: Callable[[bytes], bytes]) -> bytes:
    """Change the header of a safetensors file, whose length is then right again, or its numbers."""
    size = int.from_bytes(content[:8], "little")
    header, numbers = content[8 : 8 + size], content[8 + size :]
    if chance.random() < 0.7:
        header = json_text(header, chance, mutate)
    else:
        numbers = mutate(numbers)
    return len(header).to_bytes(8, "little") + header + numbers


def archive(content: bytes, chance: random.Random, mutate: Callable[[bytes], bytes]) -> bytes:
    """Change one file in a ZIP archive, whose checksums are then right again, or its name."""
    old = zipfile.ZipFile(io.BytesIO(content))
    names = old.namelist()
    chosen = chance.choice([*names, *(name for name in names if name.endswith(".pkl"))])
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as new:
        for name in names:
            inside = old.read(name)
            if name == chosen:
                if chance.random() < 0.1:
                    name = chance.choice((name + "x", "../" + name, "archive/data/9", "/etc/x"))
                else:
                    inside = mutate(inside)
            new.writestr(name, inside)
    return changed.getvalue()


def _changed(value: Any, chance: random.Random) -> Any:
    """The value with one place in it changed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        what = chance.random()
        if what < 0.1:
            return {other: one for other, one in value.items() if other != name}
        if what < 0.2:
            return {(chance.choice(("x", "", "name")) if other == name else other): one for other, one in value.items()}
        return {other: _changed(one, chance) if other == name else one for other, one in value.items()}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        if chance.random() < 0.2:
            return value[:place] + value[place + 1 :]
        return [_changed(one, chance) if here == place else one for here, one in enumerate(value)]
    if isinstance(value, int | float) and chance.random() < 0.3:
        return chance.choice((value + 1, value - 1, -value, value * 1000, str(value), float(value)))
    return chance.choice(_VALUES)
