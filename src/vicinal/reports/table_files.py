"""The tables of a study as files: Markdown, LaTeX and CSV."""

import csv
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.escaping import spreadsheet_cell, visible, with_text
from vicinal.reports.study_cells import (
    CONDITION,
    cost_table,
    metrics_table,
    published_table,
    split_table,
    study_table,
)
from vicinal.reports.study_text import (
    DIFFERENCES,
    PUBLISHED_TITLE,
    answer,
    best_caption,
    caption,
    data_notes,
    parts_caption,
    published_caption,
    remarks,
)

_NUMBERS = (
    "wrong labels learned, %",
    "trials",
    "at the best epoch",
    "seconds",
    "examples per second",
    "peak memory",
)
"""The columns that are aligned to the right."""

_TEX = {character: rf"\{character}" for character in "#$%&_{}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "±": r"$\pm$",
    "²": r"\textsuperscript{2}",
    "—": "---",
}


def latex(summary: Mapping[str, Any]) -> str:
    """Return the main table as LaTeX for the package booktabs, with its caption.

    Letters outside of ASCII are kept: pdfLaTeX reads them as UTF-8, and prints those of its fonts.
    """
    head, rows = with_text(study_table(summary), tex_escaped)
    skip = int(head[0] == CONDITION)
    columns = "".join("r" if name in map(tex_escaped, _NUMBERS) else "l" for name in head[skip:])
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(head[skip:]) + r" \\", r"\midrule"]
    groups = itertools.groupby(rows, lambda row: row[0] if skip else "")
    for k, (condition, group) in enumerate(groups):
        if skip:
            lines += [r"\addlinespace"] * (k > 0)
            lines.append(rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{condition}}}}} \\")
        lines += [" & ".join(row[skip:]) + r" \\" for row in group]
    whole = " ".join(one(summary) for one in (caption, parts_caption, best_caption)).strip()
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{tex_escaped(whole)}}}",
        r"\end{table}",
    ]
    return "\n".join(["% \\usepackage{booktabs}", *lines]) + "\n"


def tex_escaped(text: str) -> str:
    r"""Return text that LaTeX prints unchanged.

    Example:
        >>> print(tex_escaped(r"50% of \alpha_1 & {x}"))
        50\% of \textbackslash{}alpha\_1 \& \{x\}
    """
    # A bracket right after the end of a row would be read as an argument of it.
    return "".join(_TEX.get(one, one) for one in visible(text)).replace("[", "{[}")


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


def escaped(text: str) -> str:
    """Return text that Markdown shows unchanged, even in a cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|~$])", r"\\\1", visible(text)).replace("&", "&amp;")


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the answer and the tables of a study as Markdown."""
    summary = with_text(summary, escaped)
    head, rows = study_table(summary)
    parts = [
        answer(summary),
        markdown_table(head, _alignment(head), rows),
        " ".join(one(summary) for one in (caption, parts_caption, best_caption)).strip(),
        _bullets(remarks(summary)),
    ]
    head, rows = metrics_table(summary)
    if rows:
        parts += ["## Other metrics", markdown_table(head, "-" * len(head), rows)]
    head, rows = published_table(summary)
    if rows:
        table = markdown_table(head, "-::--", rows)
        parts += [f"## {PUBLISHED_TITLE}", table, published_caption(summary)]
        if differences := summary["settings"].get("known_differences"):
            parts += [DIFFERENCES, _bullets(differences)]
    head, rows = cost_table(summary)
    parts += ["## Cost", markdown_table(head, _alignment(head), rows)]
    _, splits = split_table(summary)
    if splits:
        parts.append("Data: " + ", ".join(f"{row[1]} {row[0]} examples" for row in splits) + ".")
        parts.append(_bullets(data_notes(summary)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _alignment(head: Sequence[str]) -> str:
    return "".join(":" if name in _NUMBERS else "-" for name in head)


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def csv_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a summary with a column for each number, such as ``accuracy_low``.

    The values of each class or label are omitted.
    """
    plain, nested = [], {"failed", "labels", "metrics", "recall", "to_halve"}
    for row in summary["rows"]:
        cells = {k: v for k, v in row.items() if k not in nested}
        for what in ("seeds", "examples"):
            cells[f"{what}_to_halve"] = (row["to_halve"] or {}).get(what)
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
