"""Each package's public names are there, whether its ``__init__`` imports them at once or when they are asked for."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import matcaps

PACKAGE = Path(matcaps.__file__).parent
PACKAGES = sorted(
    ".".join(("matcaps", *path.parent.relative_to(PACKAGE).parts))
    for path in PACKAGE.rglob("__init__.py")
    if path.parent.name not in ("cli", "export")  # they have no names for users
)
NEEDS_AN_EXTRA = {"matcaps.demo": "gradio"}


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_exist_and_others_do_not(name):
    package = importlib.import_module(name)
    assert package.__all__
    assert len(set(package.__all__)) == len(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense
    with pytest.raises(ImportError, match="nonsense"):
        exec(f"from {name} import nonsense")
    if name in NEEDS_AN_EXTRA:
        pytest.importorskip(NEEDS_AN_EXTRA[name])
    for public in package.__all__:
        assert getattr(package, public) is not None
    names = {}
    exec(f"from {name} import *", names)
    assert names.keys() - {"__builtins__"} == set(package.__all__)


@pytest.mark.parametrize(
    "name", [name for name in PACKAGES if not name.endswith((".layers", ".routing", ".routings", ".report"))]
)
def test_a_package_loads_torch_when_a_name_needs_it_and_not_before(name):
    code = f"import sys, {name}; assert 'torch' not in sys.modules; dir({name}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_class_is_the_same_by_either_way():
    from matcaps.data.settings import DataSettings

    assert matcaps.data.DataSettings is DataSettings


@pytest.mark.parametrize("earlier", ["training.inference.open_saved", "training.inference.evaluate_saved"])
def test_what_has_moved_can_be_imported_from_where_it_was(earlier):
    *module, name = earlier.split(".")
    assert getattr(importlib.import_module(".".join(["matcaps", *module])), name) is getattr(matcaps.inference, name)
    assert matcaps.training.load_decoder is matcaps.models.load_decoder
