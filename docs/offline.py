"""A hook of MkDocs: fails the build if a page loads a script, a style, a font or an image from another host."""

from __future__ import annotations

import re

from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'>\s]+"""
    r"""|<link\b[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon)\b[^>]*\bhref=["']?(?:https?:)?//[^"'>\s]+"""
    r"""|\bdata-md-component=["']?source\b"""  # the theme's script asks the host of the repository
)


def on_post_page(output: str, *, page: Page, **_options: object) -> str:
    """Return the page unchanged."""
    found = _LOADED.search(output)
    if found is not None:
        raise PluginError(
            f"{page.file.src_path} would contact another host: {found[0]}"
        )
    return output
