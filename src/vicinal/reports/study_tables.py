"""The tables of a study for the terminal, and as Markdown and CSV."""

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
from vicinal.reports.wording import (
    DIFFERENCES,
    PUBLISHED,
    PUBLISHED_CAPTION,
    PUBLISHED_HEADING,
    answer,
    caption,
    data_notes,
    differences,
    heading,
    lines,
    published_lines,
    remarks,
    split_lines,
)

_STYLES = {
    "better": "bold green",
    "worse": "bold red",
    "no evidence": "yellow",
    "withheld": "yellow",
}


def print_table(summary: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a study, and its answer below; made for 80 columns."""
    summary = with_text(summary, visible)
    head = heading(summary)
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        caption=Text(caption(summary)),
        caption_justify="left",
    )
    rows = lines(summary)
    widest = max(max(len(line.arm), len(line.condition)) for line in rows)
    table.add_column(head.arm, overflow="fold", min_width=min(widest, 16))
    table.add_column(_with_interval("test accuracy, %"), no_wrap=True)
    table.add_column(_with_interval(head.difference), no_wrap=True)
    table.add_column(head.verdict, no_wrap=True)
    table.add_column("wrong\nlearned", justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    previous = None
    for line in rows:
        if line.condition != previous:
            if previous is not None:
                table.add_section()
            table.add_row(Text(line.condition, "bold"))
            previous = line.condition
        style = _STYLES.get(line.verdict, "dim")
        texts = map(Text, (line.accuracy, line.difference))
        judged = Text(line.verdict, style)
        table.add_row(Text(line.arm), *texts, judged, line.memorized, line.seconds)
    console.print(table)
    _print_published(summary, console)
    for sentence in remarks(summary):
        console.print(Text(sentence))
    console.print(Text(answer(summary)))


def _with_interval(words: str) -> Text:
    """Return the head of a column whose cells have an interval."""
    return Text.assemble(words, "\n", ("95 % interval", "dim"))


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
        caption=Text(PUBLISHED_CAPTION),
        caption_justify="left",
    )
    table.add_column(head.arm, overflow="fold", min_width=min(max(len(r.arm) for r in rows), 14))
    table.add_column(head.epochs, justify="right", no_wrap=True)
    table.add_column("published\n%", justify="right", no_wrap=True)
    table.add_column(_with_interval(head.ours), no_wrap=True)
    table.add_column(head.source, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print()
    console.print(table)
    if differing := differences(summary):
        console.print(Text(DIFFERENCES))
        for sentence in differing:
            console.print(Padding(Text(f"- {sentence}"), (0, 0, 0, 2), expand=False))
        console.print()


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the answer and the tables of a study as Markdown."""
    summary = with_text(summary, escaped)
    parts = [
        answer(summary),
        markdown_table(heading(summary), "-----:::", lines(summary)),
        caption(summary),
        "\n".join(f"- {sentence}" for sentence in remarks(summary)),
    ]
    if rows := published_lines(summary):
        table = markdown_table(PUBLISHED_HEADING, "-::--", rows)
        parts += [f"## {PUBLISHED}", table, PUBLISHED_CAPTION]
        if differing := differences(summary):
            parts += [DIFFERENCES, "\n".join(f"- {sentence}" for sentence in differing)]
    if counted := split_lines(summary):
        parts.append(
            "Data: " + ", ".join(f"{line.examples} {line.split} examples" for line in counted) + "."
        )
        parts.append("\n".join(f"- {sentence}" for sentence in data_notes(summary)))
    return "\n\n".join(part for part in parts if part) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of a summary as CSV: plain numbers under the names that the JSON has.

    Lists, such as the recall of each class, are left out. A text that a spreadsheet would take for
    a formula gets an apostrophe in front.
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
