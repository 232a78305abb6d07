"""The tables of a study for the terminal, as Markdown, and as CSV."""

import csv
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from vicinal.escaping import visible, with_text
from vicinal.reports.study_text import (
    DIFFERENCES,
    PUBLISHED_CAPTION,
    PUBLISHED_TITLE,
    answer,
    caption,
    data_notes,
    published_table,
    remarks,
    split_table,
    study_table,
)
from vicinal.reports.terminal import plain_table

_STYLES = {"better": "bold green", "worse": "bold red"}


def print_study(summary: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a study, and its answer below them, within 80 columns."""
    summary = with_text(summary, visible)
    (_, arm, _, difference, verdict, *_), rows = study_table(summary)
    table = plain_table(padding=0, caption=Text(caption(summary)))
    longest = max(len(text) for row in rows for text in row[:2])
    table.add_column(arm, overflow="fold", min_width=min(longest, 16))
    for name in ("test accuracy, %", difference):
        table.add_column(Text.assemble(name, "\n", ("95% interval", "dim")), no_wrap=True)
    table.add_column(verdict, no_wrap=True)
    table.add_column("wrong\nlearned", justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    for condition, group in itertools.groupby(rows, lambda row: row[0]):
        table.add_section()
        table.add_row(Text(condition, "bold"))
        for _, *cells, verdict, memorized, _, seconds in group:
            styled = Text(verdict, _STYLES.get(verdict, ""))
            table.add_row(*map(Text, cells), styled, memorized, seconds)
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
        markdown_table(head, "-----:::", rows),
        caption(summary),
        _bullets(remarks(summary)),
    ]
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


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of a summary as CSV: plain numbers, with the names of the JSON as the header.

    Lists, such as the recall of each class, are omitted. Text that a spreadsheet would take for a
    formula gets a leading apostrophe.
    """
    names = [name for name, value in rows[0].items() if not isinstance(value, list)]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(with_text(rows, _as_cell))
    return text.getvalue()


def _as_cell(text: str) -> str:
    text = visible(text)
    return f"'{text}" if text.lstrip()[:1] in set("=+-@＝＋－＠") else text
