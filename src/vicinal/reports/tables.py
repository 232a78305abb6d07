"""The tables of a study for the terminal, and as Markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vicinal.reports.words import (
    PUBLISHED,
    PUBLISHED_CAPTION,
    PUBLISHED_HEADING,
    answer,
    caption,
    heading,
    lines,
    published_lines,
)

_STYLES = {"better": "bold green", "worse": "bold red", "no evidence": "yellow"}


def print_table(summary: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a study, and its answer below; made for 80 columns."""
    head = heading(summary)
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        caption=caption(summary),
        caption_justify="left",
    )
    rows = lines(summary)
    widest = max(max(len(line.arm), len(line.condition)) for line in rows)
    table.add_column(head.arm, overflow="fold", min_width=min(widest, 16))
    table.add_column("test accuracy, %\n[dim]95 % interval[/dim]", no_wrap=True)
    table.add_column(f"{head.difference}\n[dim]95 % interval[/dim]", no_wrap=True)
    table.add_column(head.verdict, no_wrap=True)
    table.add_column("wrong\nlearned", justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    previous = None
    for line in rows:
        if line.condition != previous:
            if previous is not None:
                table.add_section()
            table.add_row(f"[bold]{line.condition}[/bold]")
            previous = line.condition
        style = _STYLES.get(line.verdict, "dim")
        judged = f"[{style}]{line.verdict}[/{style}]"
        table.add_row(
            escape(line.arm), line.accuracy, line.difference, judged, line.memorised, line.seconds
        )
    console.print(table)
    _print_published(summary, console)
    console.print(answer(summary), highlight=False, markup=False)


def _print_published(summary: Mapping[str, Any], console: Console) -> None:
    rows = published_lines(summary)
    if not rows:
        return
    head = PUBLISHED_HEADING
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        title=PUBLISHED,
        title_justify="left",
        title_style="bold",
        caption=PUBLISHED_CAPTION,
        caption_justify="left",
    )
    table.add_column(head.arm, overflow="fold", min_width=min(max(len(r.arm) for r in rows), 14))
    table.add_column(head.epochs, justify="right", no_wrap=True)
    table.add_column("published\n%", justify="right", no_wrap=True)
    table.add_column(f"{head.ours}\n[dim]95 % interval[/dim]", no_wrap=True)
    table.add_column(head.source, overflow="fold")
    for row in rows:
        table.add_row(escape(row.arm), row.epochs, row.published, row.ours, escape(row.source))
    console.print()
    console.print(table)


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the answer and the tables of a study as Markdown."""
    parts = [
        answer(summary),
        _markdown_table(heading(summary), "-----:::", lines(summary)),
        caption(summary),
    ]
    if rows := published_lines(summary):
        table = _markdown_table(PUBLISHED_HEADING, "-::--", rows)
        parts += [f"## {PUBLISHED}", table, PUBLISHED_CAPTION]
    return "\n\n".join(parts) + "\n"


def _markdown_table(head: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a column is to the right where ``alignment`` has a colon."""
    rule = ["--:" if sign == ":" else "---" for sign in alignment]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of a summary as CSV: plain numbers under the names that the JSON has."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
