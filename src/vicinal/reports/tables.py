"""The table of a study for the terminal, and as Markdown and CSV."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vicinal.reports.words import answer, caption, heading, lines

_STYLES = {"better": "bold green", "worse": "bold red", "no evidence": "yellow"}


def print_table(summary: Mapping[str, Any], console: Console) -> None:
    """Print the table of a study, and its answer below; made for 80 columns."""
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
    console.print(answer(summary), highlight=False, markup=False)


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the answer and the table of a study as Markdown."""
    head = heading(summary)
    rows = [head, ["---", "---", "---", "---", "---", "--:", "--:", "--:"], *lines(summary)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{answer(summary)}\n\n{table}\n\n{caption(summary)}\n"


def csv_text(summary: Mapping[str, Any]) -> str:
    """Return the rows of a study as CSV: plain numbers under the names that the JSON has."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(summary["rows"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(summary["rows"])
    return text.getvalue()
