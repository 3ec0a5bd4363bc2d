# SPDX-License-Identifier: Apache-2.0
"""Sphinx's settings: ``make docs``."""

from __future__ import annotations

import twisted_serve

project = "twisted_serve"
author = "the twisted_serve team"
project_copyright = f"2026, {author}"
release = twisted_serve.__version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"twisted_serve {release}"
myst_heading_anchors = 3
nitpicky = True
