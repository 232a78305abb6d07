"""How pictures are drawn: SVG that takes its colors from the page around it."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from vicinal.escaping import visible

# Colors that stand for the page's own: each is put into the SVG as var(--name).
INK, FAINT = "#010001", "#010002"
ARMS = ["#010010", "#010011", "#010012", "#010013", "#010014", "#010015", "#010016"]
LINES = ["-", "--", "-.", ":"]
_VARIABLES = {INK: "--ink", FAINT: "--faint"} | {c: f"--arm{i}" for i, c in enumerate(ARMS)}

COLORS_LIGHT = {
    "--paper": "#ffffff",
    "--ink": "#1c2126",
    "--faint": "#cfd5da",
    "--arm0": "#555e66",
    "--arm1": "#0067a6",
    "--arm2": "#c24e00",
    "--arm3": "#007a56",
    "--arm4": "#a0407f",
    "--arm5": "#7a6300",
    "--arm6": "#3d4ec2",
}
COLORS_DARK = {
    "--paper": "#14181c",
    "--ink": "#e6eaee",
    "--faint": "#3c454d",
    "--arm0": "#a9b4bd",
    "--arm1": "#5bb8f0",
    "--arm2": "#f6965a",
    "--arm3": "#4fd1a1",
    "--arm4": "#e596c8",
    "--arm5": "#dbc24f",
    "--arm6": "#a3aefb",
}
"""Colors after Okabe and Ito's palette for all kinds of color vision, darker on white and lighter
on black so that lines and words stand out from the page by 4.5 to 1 or more."""


_NOT_IN_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


class Picture(NamedTuple):
    """A picture, ready for a page.

    Args:
        name: small letters and dashes; unique in a report.
        text: what the picture says, for those who do not see it.
        svg: an ``<svg>`` element whose colors are variables of the page (``COLORS_LIGHT``).
    """

    name: str
    text: str
    svg: str


def arm_color(k: int) -> str:
    """Return the color of the ``k``-th arm, from 0; they come again after the last."""
    return ARMS[k % len(ARMS)]


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the colors that stand for the page's, with words that stay words."""
    settings: Any = {
        "svg.fonttype": "none",
        "text.parse_math": False,  # a class may be called $x$
        "svg.hashsalt": "vicinal",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.grid": False,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "savefig.transparent": True,
    }
    with mpl.rc_context(settings):
        yield


def as_picture(name: str, text: str, figure: Figure) -> Picture:
    """Turn a figure into an ``<svg>`` element with a text alternative and names of its own."""
    figure.set_layout_engine("constrained")
    file = io.StringIO()
    with warnings.catch_warnings():
        # Words stay words in the file: whoever shows it brings the letters.
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font", UserWarning)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = _NOT_IN_XML.sub("\ufffd", file.getvalue())
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-text" ', 1)
    head, _, rest = svg.partition(">")
    return Picture(
        name, text, f'{head}><title id="{name}-text">{escape(visible(text))}</title>{rest}'
    )


def standalone(picture: Picture) -> str:
    """Return the SVG as a file of its own, in light and dark by the reader's setting."""
    light, dark = (
        "".join(f"{name}:{value};" for name, value in colors.items())
        for colors in (COLORS_LIGHT, COLORS_DARK)
    )
    style = (
        f"<style>svg{{{light}background:var(--paper)}}"
        f"@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    )
    head, _, rest = picture.svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>{style}{rest}\n'
