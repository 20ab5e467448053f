"""``{browser}``: the network in the reader's browser, docs/_browser, with what ``tools/browser_page.py`` made for it.

Without that, because there was no npm or no package registry, the page says that this copy of the site has no network.
"""

import json
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "docs" / "_browser"
MADE = ROOT / "build" / "browser"
FOLDER = "_static/browser"

_MISSING = (
    "This copy of the site has no network in it: onnxruntime-web was not there when it was built. "
    "Where npm reaches a package registry, make docs puts it in."
)


class Browser(SphinxDirective):
    """See the module."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(MADE / "files.json"))
        self.env.note_dependency(str(SOURCES / "page.html"))
        if not sizes():
            return [nodes.note("", nodes.paragraph("", _MISSING))]
        page = (SOURCES / "page.html").read_text(encoding="utf-8")
        links = (
            f'<link rel="stylesheet" href="{FOLDER}/page.css"><script type="module" src="{FOLDER}/page.mjs"></script>'
        )
        return [nodes.raw("", links + page, format="html")]


def sizes() -> dict[str, int]:
    """Bytes of each file that was made; nothing where none was."""
    files = MADE / "files.json"
    return json.loads(files.read_text(encoding="utf-8"))["sizes"] if files.is_file() else {}


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("browser", Browser)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True}


def copy_files(app: Sphinx, exception: Exception | None) -> None:
    """Put the page's files beside it."""
    if exception is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    if sizes():
        shutil.copytree(MADE / "site", target)
        for path in (*SOURCES.glob("*.mjs"), *SOURCES.glob("*.css")):
            shutil.copy(path, target / path.name)
