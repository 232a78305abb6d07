"""Renders the HTML pages: one file each, whose only script is the one that sorts tables."""

import base64
import hashlib
import re
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from vicinal.reports import svg

_SCRIPT = (resources.files("vicinal.reports") / "templates/table.js").read_text("utf-8")


def render(template: str, **values: Any) -> str:
    """Return a page; text in the values is escaped.

    The page's Content-Security-Policy allows the script by its hash, and nothing else.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vicinal.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    return environment.get_template(template).render(
        script=Markup(_SCRIPT),
        script_hash=base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode(),
        light=svg.COLORS_LIGHT,
        dark=svg.COLORS_DARK,
        **values,
    )


def _unbroken(cell: str) -> str:
    """Return the text of a cell with no line break inside the brackets of an interval."""
    return re.sub(r"\[[^\[\]]{1,40}\]", lambda found: found[0].replace(" ", "\xa0"), cell)
