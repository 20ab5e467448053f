"""References to objects of matcaps under any of their names, and to those that have no entry on the site.

A class is referred to by the module that defines it, or by the package that shows it: either finds its entry. What is
not public has no entry, but its name must be one that exists; it is shown without a link.
"""

import importlib
import re
import sys
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

ABSENT = object()
_DOCSTRING = re.compile(r"docstring of (?P<name>[\w.]+)")


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("missing-reference", find_object)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-signature", say_factories)
    return {"parallel_read_safe": True}


def find_object(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> Any:
    """The entry of a reference whose name is not that of the entry; its words alone where there is none; or None."""
    if node.get("refdomain") != "py":
        return None
    entries = env.domains.python_domain.objects
    names = _names_by_identity(entries)
    for candidate in _candidates(node):
        thing = resolve(candidate)
        if thing is ABSENT:
            continue
        entry = names.get(id(thing))
        if entry is None:
            return content
        place = entries[entry]
        return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, content, entry)
    return None


def _candidates(node: pending_xref) -> list[str]:
    """The names that a reference may mean: as it stands, or seen from the class, module or file it stands in."""
    target = node["reftarget"]
    places = [node.get("py:class"), node.get("py:module")]
    said_in = _DOCSTRING.search(node.source or "")
    if said_in:
        parts = said_in["name"].split(".")
        places += [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        documented = resolve(said_in["name"])
        places.append(getattr(documented, "__module__", None))
    if node.get("py:module") and node.get("py:class"):
        owner = resolve(f"{node['py:module']}.{node['py:class']}")
        places += [f"{node['py:module']}.{node['py:class']}", getattr(owner, "__module__", None)]
    if "." not in target:  # imported for type checkers alone, it is in no module that shows it
        places += [name for name, module in list(sys.modules.items()) if _defines(name, module, target)]
    return [target, *(f"{place}.{target}" for place in places if place)]


def _defines(name: str, module: Any, thing: str) -> bool:
    return name.startswith("matcaps.") and getattr(vars(module).get(thing), "__module__", None) == name


def _names_by_identity(entries: dict[str, Any]) -> dict[int, str]:
    key = len(entries)
    if key not in _KNOWN:
        found = {name: resolve(name) for name, entry in entries.items() if entry.objtype not in ("module", "data")}
        _KNOWN[key] = {id(thing): name for name, thing in found.items() if thing is not ABSENT}
    return _KNOWN[key]


_KNOWN: dict[int, dict[int, str]] = {}


def resolve(name: str) -> Any:
    """What a dotted name of matcaps stands for; ``ABSENT`` if there is no such thing."""
    parts = name.split(".")
    if parts[0] != "matcaps":
        return ABSENT
    for length in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if part in getattr(thing, "__dataclass_fields__", ()) and not hasattr(thing, part):
                return None
            try:
                thing = getattr(thing, part)
            except (AttributeError, ImportError):
                return ABSENT
        return thing
    return ABSENT


def skip_fields(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """The fields of a named tuple are listed in its docstring: "Alias for field number 0" says nothing more."""
    doc = getattr(member, "__doc__", None) or ""
    return True if doc.startswith("Alias for field number") else None


def say_factories(
    app: Sphinx, what: str, name: str, member: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A default that a factory makes is ``...``: ``<factory>`` is no Python, and would leave the signature unread."""
    return arguments and arguments.replace("<factory>", "..."), returns
