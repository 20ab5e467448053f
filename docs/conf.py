"""How Sphinx builds the site: ``make docs``."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from matcaps import __version__

project = "matcaps"
author = "The matcaps authors"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "_site.browser",
    "_site.drawn",
    "_site.links",
    "_site.mathml",
    "_site.names",
]
root_doc = "index"
exclude_patterns = ["_browser", "records/*/**", "queue/*/**", "_site", "figures"]
source_url = os.environ.get("MATCAPS_SOURCE_URL", "")

# Notebooks are shown without what they print: `make test` runs them. MATCAPS_DOCS_RUN=auto runs them here, too.
nb_execution_mode = os.environ.get("MATCAPS_DOCS_RUN", "off")
nb_execution_timeout = 600

# Markdown as the repository's pages show it: headings have the same anchors there and here.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 6
myst_dmath_double_inline = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # torch's and Lightning's own are theirs to explain
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
add_module_names = False
python_maximum_signature_line_length = 88

autodoc_mock_imports = ["gradio", "starlette"]

nitpicky = True
# There is no network where this is built, so types of other packages have nowhere to lead.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|np|PIL|lightning|pl|matplotlib|torchmetrics|jsonargparse|pandas|nn|gradio)(\..*)?"),
    (r"py:.*", r"(collections|hashlib|pathlib|os|typing|types|enum|abc|datetime|argparse|functools)(\..*)?"),
]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "matcaps"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"
