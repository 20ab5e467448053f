#!/usr/bin/env python3
"""Install the oldest versions that pyproject.toml allows into an environment of their own, and test there.

    .venv/bin/python tools/test_oldest.py

What pyproject.toml names is taken at its lower bound, all else as constraints.txt pins it, but for what cannot go with
such old versions. So a bound is a promise that was tried. The environment lies in a temporary folder and goes at the
end; on Linux it takes torch's build for CUDA, several gigabytes, unless pip finds another of that version.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

NOT_PINNED = {"contourpy", "scipy", "protobuf"}
"""The pinned ones need a newer numpy, or the oldest TensorBoard needs an older one."""

TOOLS = ["pytest", "pytest-xdist", "hypothesis", "foolbox", "sybil"]

TESTS = [
    "tests/data", "tests/models", "tests/layers", "tests/inspect", "tests/report", "tests/training",
    "tests/experiments", "tests/demo", "tests/test_cli.py", "tests/test_cli_inspect.py", "tests/test_losses.py",
    "tests/routing/test_reference_values.py", "tests/routing/test_native_torch.py",
]  # fmt: skip
"""Where the dependencies are used. Most tests of the routing are left out: it needs torch alone, whose oldest version
is the one that all tests are run with."""


def oldest() -> dict[str, str]:
    """The lower bound of every dependency, by its canonical name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {}
    for text in [*project["dependencies"], *project["optional-dependencies"]["hub"]]:
        requirement = Requirement(text)
        (lower,) = (one.version for one in requirement.specifier if one.operator in (">=", "=="))
        bounds[canonicalize_name(requirement.name)] = lower
    return bounds


def constraints(bounds: dict[str, str]) -> str:
    """constraints.txt with the lower bounds in place of what it pins."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    kept = {
        name: version for name, version in pinned.items() if canonicalize_name(name) not in NOT_PINNED | set(bounds)
    }
    return "".join(f"{name}=={version}\n" for name, version in sorted({**kept, **bounds}.items()))


def main() -> None:
    bounds = oldest()
    with tempfile.TemporaryDirectory(prefix="matcaps-oldest-") as temporary:
        folder = Path(temporary)
        (folder / "oldest.txt").write_text(constraints(bounds), encoding="utf-8")
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", folder / "oldest.txt"]
        subprocess.run([*install, f"{ROOT}[hub]", *TOOLS], check=True)
        look = "import matcaps, importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]), matcaps.__file__)"
        done = subprocess.run([python, "-c", look, *bounds], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
        *versions, where = done.stdout.split()
        print(", ".join(f"{name} {version}" for name, version in zip(bounds, versions, strict=True)), flush=True)
        assert Path(where).is_relative_to(folder.resolve()), f"this would test {where}"
        tests = [python, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *TESTS]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        sys.exit(subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
