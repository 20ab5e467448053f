"""``{drawn} NAME``: a figure of ``docs/figures`` with its caption, in the colours of the reader's theme.

The option ``alt`` says what is to be seen, for those who do not see it.
"""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from figures import FIGURES, write
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = "_drawn"


class Drawn(SphinxDirective):
    """See the module."""

    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required}  # noqa: RUF012 - docutils' own way

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in FIGURES:
            raise self.error(f"no figure {name!r}; there are {', '.join(FIGURES)}")
        if "alt" not in self.options:
            raise self.error(f"figure {name!r} needs its :alt:")
        figure = nodes.figure(classes=["drawn"])
        for theme in ("light", "dark"):
            uri = f"/{FOLDER}/{name}-{theme}.svg"
            figure += nodes.image(uri=uri, alt=self.options["alt"], classes=[f"only-{theme}"])
        if self.content:
            caption = nodes.caption()
            paragraphs = self.parse_content_to_nodes()
            caption += [child for paragraph in paragraphs for child in paragraph.children]
            figure += caption
        return [figure]


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("drawn", Drawn)
    app.connect("builder-inited", draw_all)
    return {"parallel_read_safe": True}


def draw_all(app: Sphinx) -> None:
    """Draw what is not there yet, or older than the code that draws it."""
    folder = Path(app.srcdir) / FOLDER
    newest = max(path.stat().st_mtime for path in (Path(app.srcdir) / "figures").glob("*.py"))
    for name in FIGURES:
        there = folder / f"{name}-dark.svg"
        if not there.is_file() or there.stat().st_mtime < newest:
            write(name, folder)
