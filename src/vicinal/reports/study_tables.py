"""The tables of a study for the terminal, as Markdown, and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vicinal.escaping import visible, with_text
from vicinal.reports.markdown import escaped, markdown_table
from vicinal.reports.study_text import (
    DIFFERENCES,
    PUBLISHED_CAPTION,
    PUBLISHED_HEAD,
    PUBLISHED_TITLE,
    answer,
    caption,
    data_notes,
    known_differences,
    published_rows,
    remarks,
    split_rows,
    study_head,
    study_rows,
)

_STYLES = {
    "better": "bold green",
    "worse": "bold red",
    "no evidence": "yellow",
    "withheld": "yellow",
}


def print_study(summary: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a study, and its answer below them, within 80 columns."""
    summary = with_text(summary, visible)
    head, rows = study_head(summary), study_rows(summary)
    table = _table(caption(summary))
    widest = max(max(len(row.arm), len(row.condition)) for row in rows)
    table.add_column(head.arm, overflow="fold", min_width=min(widest, 16))
    table.add_column(_with_interval("test accuracy, %"), no_wrap=True)
    table.add_column(_with_interval(head.difference), no_wrap=True)
    table.add_column(head.verdict, no_wrap=True)
    table.add_column("wrong\nlearned", justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    previous = None
    for row in rows:
        if row.condition != previous:
            if previous is not None:
                table.add_section()
            table.add_row(Text(row.condition, "bold"))
            previous = row.condition
        verdict = Text(row.verdict, _STYLES.get(row.verdict, "dim"))
        texts = map(Text, (row.arm, row.accuracy, row.difference))
        table.add_row(*texts, verdict, row.memorized, row.seconds)
    console.print(table)
    if published := published_rows(summary):
        _print_published(published, known_differences(summary), console)
    for sentence in (*remarks(summary), answer(summary)):
        console.print(Text(sentence))


def _print_published(rows: list[list[str]], differences: list[str], console: Console) -> None:
    arm, epochs, _, _, source = PUBLISHED_HEAD
    table = _table(PUBLISHED_CAPTION, title=PUBLISHED_TITLE, title_style="bold")
    table.add_column(arm, overflow="fold", min_width=min(max(len(row[0]) for row in rows), 14))
    table.add_column(epochs, justify="right", no_wrap=True)
    table.add_column("published\n%", justify="right", no_wrap=True)
    table.add_column(_with_interval("ours, %"), no_wrap=True)
    table.add_column(source, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print()
    console.print(table)
    if differences:
        console.print(Text(DIFFERENCES))
        for sentence in differences:
            console.print(Padding(Text(f"- {sentence}"), (0, 0, 0, 2), expand=False))
        console.print()


def _table(caption: str, **settings: Any) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        title_justify="left",
        caption=Text(caption),
        caption_justify="left",
        **settings,
    )


def _with_interval(text: str) -> Text:
    """Return the head of a column whose cells have an interval."""
    return Text.assemble(text, "\n", ("95 % interval", "dim"))


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the answer and the tables of a study as Markdown."""
    summary = with_text(summary, escaped)
    parts = [
        answer(summary),
        markdown_table(study_head(summary), "-----:::", study_rows(summary)),
        caption(summary),
        _bullets(remarks(summary)),
    ]
    if rows := published_rows(summary):
        table = markdown_table(PUBLISHED_HEAD, "-::--", rows)
        parts += [f"## {PUBLISHED_TITLE}", table, PUBLISHED_CAPTION]
        if differences := known_differences(summary):
            parts += [DIFFERENCES, _bullets(differences)]
    if splits := split_rows(summary):
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
