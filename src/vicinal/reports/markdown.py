"""Markdown tables, and text that Markdown shows as it is."""

import re
from collections.abc import Sequence

from vicinal.escaping import visible


def markdown_table(head: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a colon in ``alignment`` aligns a column to the right.

    Example:
        >>> print(markdown_table(["arm", "%"], "-:", [["ERM", "99.0"]]))
        | arm | % |
        | --- | --: |
        | ERM | 99.0 |
    """
    rule = ["--:" if sign == ":" else "---" for sign in alignment]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, also in a cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|~$])", r"\\\1", visible(text)).replace("&", "&amp;")
