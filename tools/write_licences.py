#!/usr/bin/env python3
"""Write docs/licences.md: what matcaps and its extras install, by the lists that pip-licenses writes.

    pip-licenses --python PYTHON --format=json --with-urls --from=mixed > build/licences.json
    python tools/write_licences.py build/licences.json

``make licences`` does it in an environment with all extras. Stops at a licence that is not known to go with matcaps's.
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"

# Words of licences under which a package may be used unchanged beside code under Apache-2.0. Anything else stops.
PERMISSIVE = re.compile(
    r"(The )?(MIT|MIT-CMU|BSD|0BSD|[23][- ]Clause BSD|BSD-[23]-Clause|Apache([ -]2\.0)?|PSF-2\.0|Python Software "
    r"Foundation|ISC|Zlib|CC0-1\.0|BSL-1\.0|CNRI-Python|Unlicense|Public Domain|HPND|Historical Permission Notice and "
    r"Disclaimer)( Software)?( License)?( \((ISCL|HPND)\))?( WITH LLVM-exception)?"
)
WEAK = re.compile(r"MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)")
"""Binds who changes their files; they are used unchanged, and nothing of them is in matcaps's packages."""
KNOWN = {
    "docutils": "public domain and BSD; GPL for tools for Emacs that are not installed",
    "cuda-bindings": "NVIDIA's own: may be used, is not passed on",
    "nvidia-cuda-nvrtc": "NVIDIA's own: may be used, is not passed on",
}
"""Packages whose licence was read by somebody."""


INTRODUCTION = """\
matcaps is under Apache-2.0. Its packages hold nothing of others; `pip` installs these beside it: those that matcaps or
one of its extras asks for, and what these ask for in turn (the last column is empty). Each licence, as the package
itself states it, lets it be used unchanged beside code under Apache-2.0. `make licences` writes this page, and stops at
a licence that it does not know."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def is_compatible(licence: str) -> bool:
    """Whether each part of a licence, as pip-licenses or SPDX writes it, is known to go with Apache-2.0."""
    parts = re.split(r";| AND | OR ", licence.replace("(Apache-2.0 OR MIT)", "Apache-2.0 OR MIT"))
    return bool(licence) and all(PERMISSIVE.fullmatch(one.strip()) or WEAK.fullmatch(one.strip()) for one in parts)


def asked_for() -> dict[str, str]:
    """The packages that pyproject.toml names, and what asks for them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"matcaps": project["dependencies"]} | {
        f"matcaps[{name}]": wanted for name, wanted in project["optional-dependencies"].items()
    }
    found: dict[str, list[str]] = {}
    for group, wanted in groups.items():
        for one in wanted:
            name = re.match(r"[\w.-]+", one)
            assert name is not None
            if canonical(name[0]) != "matcaps":
                found.setdefault(canonical(name[0]), []).append(group)
    return {name: ", ".join(by) for name, by in found.items()}


def page(listed: list[dict[str, Any]]) -> str:
    asked, rows, seen = asked_for(), [], set()
    for one in sorted(listed, key=lambda one: canonical(one["Name"])):
        name = canonical(one["Name"])
        if name == "matcaps" or name in seen:
            continue
        seen.add(name)
        licence = KNOWN.get(name) or one["License"]
        if name not in KNOWN and not is_compatible(licence):
            raise SystemExit(f"{one['Name']} has the licence {licence!r}: read it, and add it to {Path(__file__).name}")
        link = f"[{one['Name']}]({one['URL']})" if str(one["URL"]).startswith("https://") else one["Name"]
        rows.append(f"| {link} | {licence} | {asked.get(name, '')} |")
    missing = sorted(asked.keys() - seen)
    if missing:
        raise SystemExit(f"these are not installed where the list was made: {', '.join(missing)}")
    return "\n".join(
        [
            "# Licences of what is installed",
            "",
            INTRODUCTION,
            "",
            "| package | licence | asked for by |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def main() -> None:
    listed = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    PAGE.write_text(page(listed), encoding="utf-8")


if __name__ == "__main__":
    main()
