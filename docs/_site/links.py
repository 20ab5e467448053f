"""One text for two readers: pages that are read on the repository's pages and on the site alike.

A page links to files of the repository by relative paths. Where such a file is a page of the site, too, the link goes
there; where it is any other file, to the repository if its address is known (``MATCAPS_SOURCE_URL``), else to a copy
that is downloaded. A page that stands outside ``docs/`` is shown by one whose only words are an ``include`` of it.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.M)
_BLOCK = re.compile(r"(^ *```.*?^ *```$)", re.M | re.S)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_PICTURE = re.compile(r'^<picture>.*?<img alt="([^"]*)" src="docs/([\w-]+)-light\.svg">\n</picture>$', re.M | re.S)
"""A figure of ``docs/figures`` in two themes, as the repository's pages show it."""


class Links:
    """Where the links of pages lead on the site.

    Args:
        documents: the names of the site's pages, as Sphinx has them.
        source_url: the repository's address, to which ``blob/HEAD/`` and a path are added; or empty.
    """

    def __init__(self, documents: set[str], source_url: str = ""):
        self.source_url = source_url.rstrip("/")
        self.pages: dict[Path, Path] = {}
        for page in (DOCS / f"{name}.md" for name in documents):
            if page.is_file():
                self.pages[page] = page
                for included in INCLUDE.findall(page.read_text(encoding="utf-8")):
                    self.pages[(page.parent / included).resolve()] = page

    def rewrite(self, text: str, written_in: Path, shown_on: Path) -> str:
        """The text of a page, with the links that hold on the site.

        Args:
            text: Markdown.
            written_in: the file in which the text stands.
            shown_on: the page of the site that shows it.
        """

        def replace(match: re.Match[str]) -> str:
            image, words, target, anchor = match[1], match[2], match[3], match[4] or ""
            path = (written_in.parent / target).resolve()
            if not path.exists():
                return match[0]  # the parser says that it leads nowhere
            page = self.pages.get(path) or self.pages.get(path / "README.md")
            if page:
                return f"[{words}]({_relative(page, shown_on)}{anchor})"
            if image:
                return f"![{words}]({_relative(path, shown_on)})"
            if self.source_url:
                kind = "tree" if path.is_dir() else "blob"
                return f"[{words}]({self.source_url}/{kind}/HEAD/{path.relative_to(ROOT).as_posix()})"
            copied = _file_of(path)
            return f"[{words}]({_relative(copied, shown_on)})" if copied else words

        text = _PICTURE.sub(r"```{drawn} \2\n:alt: \1\n```", text)
        parts = _BLOCK.split(text)  # every second one is a block of code, which keeps what it says
        return "".join(part if place % 2 else _LINK.sub(replace, part) for place, part in enumerate(parts))


def _file_of(path: Path) -> Path | None:
    """What is copied for a reader: the file itself, or what the folder of a record is about."""
    files = (path, path / "results.json", path / "attacks.json")
    return next((file for file in files if file.is_file()), None)


def _relative(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path, page.parent)).as_posix()


def setup(app: Sphinx) -> dict[str, object]:
    app.add_config_value("source_url", "", "env")
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True}


def read_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Put in what a page includes, and mend its links."""
    page = Path(app.env.doc2path(name))
    if page.suffix != ".md":
        return
    links = Links(app.env.found_docs, app.config.source_url)

    def include(match: re.Match[str]) -> str:
        path = (page.parent / match[1]).resolve()
        app.env.note_dependency(str(path))
        return links.rewrite(path.read_text(encoding="utf-8"), path, page)

    text = links.rewrite(source[0], page, page)
    source[0] = INCLUDE.sub(include, text)
