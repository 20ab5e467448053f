"""The libraries of the extra ``integrations``, which the tests ask for and matcaps does not."""

import ast
import importlib.util
import os

import pytest

LIBRARIES = ("accelerate", "captum", "foolbox", "sklearn", "skorch", "transformers")
"""By the names under which they are imported."""


def needs(*libraries: str) -> None:
    """Skip a test where a library is missing, and say which; under ``make test-integrations`` fail instead."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if not missing:
        return
    message = f'there is no {", ".join(missing)}: pip install -c constraints.txt -e ".[integrations]"'
    if os.environ.get("MATCAPS_TEST_INTEGRATIONS"):
        pytest.fail(message)
    pytest.skip(message)


def imported(code: str) -> list[str]:
    """Which of :data:`LIBRARIES` a piece of Python imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return sorted({name.split(".")[0] for name in names} & set(LIBRARIES))
