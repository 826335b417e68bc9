"""Sphinx configuration of the documentation site (`make docs`)."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "reft-pl"
author = "The reft-pl authors"
copyright = "The reft-pl authors"  # noqa: A001 (the name that Sphinx reads)
version = release = installed_version("reft-pl")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "generated_pages",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
nitpick_ignore_regex = [
    # Other projects' classes; resolving them would need their inventories from the network.
    (r"py:.*", r"(torch|lightning|jsonargparse|collections|contextlib|pathlib|abc|enum)\..*"),
    # Our internals that signatures name and the API page leaves out.
    (r"py:.*", r"reft_pl\..*\.(Candidate|Codec|Collector|Example|Policy|ProblemLoader|Ranks|SampledQuestion|UpdateStatistics)"),
    (r"py:.*", r"(Policy|UserError)"),  # of signatures under TYPE_CHECKING, and of Raises sections, which are unqualified
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of other libraries

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "pydata_sphinx_theme"
html_title = "reft-pl"
html_theme_options = {
    "show_nav_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
}
html_sidebars = {"index": [], "tutorial": []}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"
