"""The tables of a study for the terminal, as Markdown, and as CSV."""

import csv
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from vicinal.escaping import spreadsheet_cell, visible, with_text
from vicinal.reports.study_text import (
    DIFFERENCES,
    PUBLISHED_CAPTION,
    PUBLISHED_TITLE,
    answer,
    caption,
    data_notes,
    metrics_table,
    parts_caption,
    published_table,
    remarks,
    split_table,
    study_table,
)
from vicinal.reports.terminal import plain_table

_SHORT = {"verdict": "verdict", "wrong labels learned, %": "wrong\nlearned", "seconds": "s"}
_STYLES = {"better": "bold green", "worse": "bold red"}


def print_study(summary: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a study, and its answer below them, within 80 columns."""
    summary = with_text(summary, visible)
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
        table.add_column(Text.assemble(difference, "\n", ("95% interval", "dim")), no_wrap=True)
    for name, short in _SHORT.items():
        if name in where:
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
    console.print(table)
    head, rows = published_table(summary)
    if rows:
        table = plain_table(padding=0, title=PUBLISHED_TITLE, caption=PUBLISHED_CAPTION)
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


def markdown_table(head: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    ``alignment`` has one character for each column: ``:`` aligns the column to the right, and ``-``
    keeps the default.

    Example:
        >>> print(markdown_table(["arm", "%"], "-:", [["ERM", "99.0"]]))
        | arm | % |
        | --- | --: |
        | ERM | 99.0 |
    """
    rule = ["--:" if sign == ":" else "---" for sign in alignment]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def _escaped(text: str) -> str:
    """Return text that Markdown shows unchanged, even in a cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|~$])", r"\\\1", visible(text)).replace("&", "&amp;")


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the answer and the tables of a study as Markdown."""
    summary = with_text(summary, _escaped)
    head, rows = study_table(summary)
    parts = [
        answer(summary),
        markdown_table(head, _alignment(head), rows),
        f"{caption(summary)} {parts_caption(summary)}".strip(),
        _bullets(remarks(summary)),
    ]
    head, rows = metrics_table(summary)
    if rows:
        parts += ["## Other metrics", markdown_table(head, "-" * len(head), rows)]
    head, rows = published_table(summary)
    if rows:
        table = markdown_table(head, "-::--", rows)
        parts += [f"## {PUBLISHED_TITLE}", table, PUBLISHED_CAPTION]
        if differences := summary["settings"].get("known_differences"):
            parts += [DIFFERENCES, _bullets(differences)]
    _, splits = split_table(summary)
    if splits:
        parts.append("Data: " + ", ".join(f"{row[1]} {row[0]} examples" for row in splits) + ".")
        parts.append(_bullets(data_notes(summary)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _alignment(head: Sequence[str]) -> str:
    numbers = ("wrong labels learned, %", "trials", "seconds", "best epoch")
    return "".join(":" if name in numbers else "-" for name in head)


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def csv_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a summary with a column for each number, such as ``accuracy_low``.

    Lists, such as the recall of each class, are omitted.
    """
    plain = []
    for row in summary["rows"]:
        cells = {k: v for k, v in row.items() if not isinstance(v, list | dict)}
        for name, found in row["metrics"].items():
            difference = found["difference"] or {}
            for prefix, numbers in ((name, found), (f"{name}_difference", difference)):
                for key in ("value", "low", "high", "seeds", "examples"):
                    cells[f"{prefix}_{key}".removesuffix("_value")] = numbers.get(key)
        plain.append(cells)
    return plain


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV: plain numbers, with their names as the header.

    Text that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(with_text(rows, spreadsheet_cell))
    return text.getvalue()
