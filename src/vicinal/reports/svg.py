"""Figures as SVG that takes its colors from the page around it."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from vicinal.escaping import shortened, visible

# Placeholders: each becomes var(--name) in the SVG, so that the page decides on the color.
INK, FAINT = "#010001", "#010002"
ARM_COLORS = [f"#01001{k}" for k in range(7)]
LINE_STYLES = ["-", "--", "-.", ":"]
_VARIABLES = {INK: "--ink", FAINT: "--faint"} | {c: f"--arm{i}" for i, c in enumerate(ARM_COLORS)}

_COLORS = {
    "--paper": ("#ffffff", "#14181c"),
    "--ink": ("#1c2126", "#e6eaee"),
    "--faint": ("#cfd5da", "#3c454d"),
    "--arm0": ("#555e66", "#a9b4bd"),
    "--arm1": ("#0067a6", "#5bb8f0"),
    "--arm2": ("#c24e00", "#f6965a"),
    "--arm3": ("#007a56", "#4fd1a1"),
    "--arm4": ("#a0407f", "#e596c8"),
    "--arm5": ("#7a6300", "#dbc24f"),
    "--arm6": ("#3d4ec2", "#a3aefb"),
}
COLORS_LIGHT, COLORS_DARK = ({name: pair[k] for name, pair in _COLORS.items()} for k in (0, 1))
"""Colors after Okabe and Ito's palette for all kinds of color vision, darker on white and lighter
on black, so that the contrast of lines and text is at least 4.5 to 1."""


class SvgFigure(NamedTuple):
    """A figure that a page can embed.

    Args:
        name: lowercase letters and dashes; unique in a report.
        text: the text alternative, for readers who do not see it.
        svg: an ``<svg>`` element whose colors are variables of the page (``COLORS_LIGHT``).
    """

    name: str
    text: str
    svg: str


def arm_color(k: int) -> str:
    """Return the color of the ``k``-th arm, from 0; colors repeat after the last."""
    return ARM_COLORS[k % len(ARM_COLORS)]


def slug(text: str) -> str:
    """Return text as a part of a file name.

    Example:
        >>> slug("test accuracy, 40% corrupted")
        'test-accuracy-40-corrupted'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@contextmanager
def figure_style() -> Iterator[None]:
    """Use the placeholders for colors, and keep text as text."""
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
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "image.composite_image": False,  # each image of an axes keeps its own pixels
    }
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever styles the program uses, such as LaTeX
        mpl.rcParams.update(settings)
        yield


def draw_line(axes: Axes, k: int, x: Any, y: Any, label: str, **settings: Any) -> None:
    """Draw the line of the ``k``-th arm."""
    style = LINE_STYLES[k % len(LINE_STYLES)]
    axes.plot(x, y, style, color=arm_color(k), label=shortened(label, 32), **settings)


def add_legend(figure: Figure, axes: Axes) -> None:
    """Add a legend of the lines: inside the axes, or below them if there are many."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= 4:
        axes.legend(frameon=False)
        return
    rows = -(-len(labels) // 2)
    figure.set_figheight(figure.get_figheight() + 0.17 * rows)
    labels = [shortened(label, 26) for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)


def to_svg(name: str, text: str, figure: Figure) -> SvgFigure:
    """Turn a figure into an ``<svg>`` element with a text alternative and ids that are unique."""
    figure.set_layout_engine("constrained")
    file = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text in the file, so the fonts of the viewer matter, not those found here.
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font", UserWarning)
        # Figure.savefig draws twice, once to lay out axes, which the first drawing does already.
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(file, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<image [^>]*?) id="[^"]*"', r"\1", svg)  # equal images have equal ids
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    head, _, rest = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    head = head.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-text" ')
    title = f'<title id="{name}-text">{escape(visible(text))}</title>'
    return SvgFigure(name, text, f"{head}>{title}{rest}")


def standalone_svg(figure: SvgFigure) -> str:
    """Return the content of an SVG file, light or dark as the reader prefers."""
    light, dark = (
        "".join(f"{name}:{value};" for name, value in colors.items())
        for colors in (COLORS_LIGHT, COLORS_DARK)
    )
    style = (
        f"<style>svg{{{light}background:var(--paper)}}"
        f"@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    )
    head, _, rest = figure.svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>{style}{rest}\n'
