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
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "generated_pages",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
nitpick_ignore_regex = [
    # Classes of other projects, and our own where the API page does not list them. Their inventories would need the network.
    (r"py:.*", r"(torch|lightning|transformers|jsonargparse|collections|contextlib|pathlib|numbers|typing|abc|enum)\..*"),
    (r"py:.*", r"(Tensor|nn\..*|Trainer|LightningModule|LightningDataModule|Callback|OptimizerCallable|Path)"),
    (
        r"py:.*",
        r"(Sequence|Mapping|Iterator|Iterable|Callable|AbstractContextManager|ABC|Enum|TypeAlias|ClassVar|Any|optional)",
    ),
    (r"py:.*", r"(reft_pl\..*|Policy|UserError)"),
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

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
html_sidebars = {"**": ["sidebar-nav-bs"]}
html_show_sourcelink = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"
