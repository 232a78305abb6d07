"""The tables of a study in the terminal."""

import itertools
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vicinal.escaping import visible, with_text
from vicinal.reports.study_cells import published_table, study_table
from vicinal.reports.study_text import (
    DIFFERENCES,
    PUBLISHED_TITLE,
    answer,
    caption,
    published_caption,
    remarks,
)
from vicinal.reports.terminal import plain_table

_SHORT = {
    "verdict": "verdict",
    "wrong labels learned, %": "wrong\nlearned",
    "seconds": "s per\ntrial",
}
_STYLES = {"better": "bold green", "worse": "bold red"}


def print_study(summary: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a study, and its answer below them, within 80 columns."""
    summary = with_text(summary, visible)
    table = _results(summary)
    arm = table.columns[0]
    arm.max_width = arm.min_width  # the only column whose cells may be folded
    if console.measure(table, options=console.options.update(width=1000)).maximum > console.width:
        table = _results(summary, narrow=True)
    table.columns[0].max_width = None
    console.print(table)
    head, rows = published_table(summary)
    if rows:
        table = plain_table(padding=0, title=PUBLISHED_TITLE, caption=published_caption(summary))
        table.add_column(head[0], overflow="fold", min_width=14)
        for name in head[1:3]:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column(head[3], no_wrap=True)
        table.add_column(head[4], overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print()
        console.print(table)
        if differences := summary["settings"].get("known_differences"):
            console.print(Text(DIFFERENCES))
            for sentence in differences:
                console.print(Text(f"  - {sentence}"))
            console.print()
    for sentence in (*remarks(summary), answer(summary)):
        console.print(Text(sentence))


def _results(summary: Mapping[str, Any], *, narrow: bool = False) -> Table:
    """Return the table of the results; a narrow one does not name the baseline, and has no cost."""
    head, rows = study_table(summary)
    where = {name: k for k, name in enumerate(head)}
    metric, difference = head[where["arm"] + 1], head[where["arm"] + 2]
    table = plain_table(padding=0, caption=Text(caption(summary)))
    longest = max(len(row["condition"]) for row in summary["rows"])
    longest = max(longest, *(len(row[where["arm"]]) for row in rows))
    table.add_column("arm", overflow="fold", min_width=min(longest, 16))
    shown = ["arm", metric]
    table.add_column(Text.assemble(metric, "\n", ("95% interval", "dim")), no_wrap=True)
    if difference.startswith("difference"):
        shown.append(difference)
        short = "difference" if narrow else difference
        table.add_column(Text.assemble(short, "\n", ("95% interval", "dim")), no_wrap=True)
    for name, short in _SHORT.items():
        if name in where and not (narrow and name == "seconds"):
            shown.append(name)
            table.add_column(short, justify="left" if name == "verdict" else "right", no_wrap=True)
    several = head[0] != "arm"
    for condition, group in itertools.groupby(rows, lambda row: row[0] if several else ""):
        table.add_section()
        if several:
            table.add_row(Text(condition, "bold"))
        for row in group:
            cells = [row[where[name]] for name in shown]
            table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in cells))
    return table
