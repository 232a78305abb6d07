"""Notes for the user on what was guessed about the columns of a table."""

import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from urllib.parse import quote

import numpy as np

from vicinal.data.dataset import Note
from vicinal.data.tables.columns import Column, listed
from vicinal.data.tables.delimited_text import number

_FORMS = {
    "dates or times": r"\d{1,4}([-/.:])\d{1,2}\1\d{1,4}([T ]\d.*)?|\d{1,2}:\d{2}",
    "numbers with a decimal comma": r"[+-]?\d[\d.]*,\d{1,2}|[+-]?\d[\d.]*,\d{4,}",
    "numbers with separators of thousands": r"[+-]?\d{1,3}([, '_]\d{3})+(\.\d+)?",
    "percentages": r"[+-]?\d[\d.,]*\s?%",
    "amounts of money": r"[-+(]?\s?[$€£¥]\s?[-+]?\d[\d.,]*\)?|[-+]?\d[\d.,]*\s?[$€£¥]",
}
"""Regular expressions of values that look like numbers and are read as categories."""

_FIXES = {
    "numbers with a decimal comma": "pass decimal=, (and thousands=. where digits are grouped)",
    "numbers with separators of thousands": "pass thousands=, or whatever separates them",
}
_OTHER_FIX = "write them as plain numbers"

_SAMPLE = 1000
_DETAILED = 12
_FEW = 10
"""The fewest rows in which a column is called an identifier."""


def column_notes(
    columns: Sequence[Column], rows: np.ndarray, *, chosen: Collection[str] = ()
) -> list[Note]:
    """Report the kinds of the columns, and warn of what is doubtful about them.

    Args:
        columns: the inputs.
        rows: ``(k,)`` int64, the rows of the training split.
        chosen: names of columns that the user declared as categories, without a warning.

    Example:
        >>> none = np.zeros(12, dtype=bool)
        >>> size = Column("size", "number", np.arange(12.0), none, none, None)
        >>> for note in column_notes([size], np.arange(12)):
        ...     print(note.text)
        inputs: 'size' (numbers from 0 to 11)
        column 'size' counts the rows: drop=size if it is an identifier
    """
    notes = [_summary(columns, rows)]
    found: dict[str, list[Column]] = {}
    for column in columns:
        if (doubt := _doubt(column, rows)) and column.name not in chosen:
            found.setdefault(doubt, []).append(column)
    for doubt, doubted in found.items():
        names = [column.name for column in doubted]
        word = "column" if len(doubted) == 1 else "columns"
        drop = "drop=" + ",".join(quote(name, safe=" ()/") for name in names[:5])
        if doubt in _FORMS:
            sample = doubted[0].levels[0][:40]
            count = max(_categories(column, rows) for column in doubted)
            text = (
                f"{word} {listed(names)}: {doubt} such as {sample!r}, read as up to {count:,} "
                f"categories; {_FIXES.get(doubt, _OTHER_FIX)}, or ignore them with {drop}, or "
                "list them in categories= to keep them so"
            )
        elif doubt == "id":
            widest = max(_categories(column, rows) for column in doubted)
            text = (
                f"{word} {listed(names)}: up to {widest:,} categories in {len(rows):,} training "
                f"rows, nearly one a row; {drop} if they are identifiers, or list them in "
                "categories= to keep them"
            )
        else:
            verb = doubt if len(doubted) == 1 else doubt.replace("s ", " ", 1)
            text = f"{word} {listed(names)} {verb}: {drop} if it is an identifier"
            if doubt != "counts the rows":
                text = f"{word} {listed(names)} {verb} in the training split"
        notes.append(Note(text, doubtful=True))
    return notes


def _doubt(column: Column, rows: np.ndarray) -> str:
    values, missing = column.values[rows], column.missing[rows]
    if missing.all():
        return "holds no value"
    known = values[~missing]
    if (known == known[0]).all() and (column.kind == "number" or not missing.any()):
        return "holds one value"
    if column.kind == "number":
        whole = column.values
        counts = len(whole) >= _FEW and not np.isnan(whole).any() and (np.diff(whole) == 1).all()
        return "counts the rows" if counts else ""
    sample = column.levels[:_SAMPLE]
    for form, pattern in _FORMS.items():
        fitting = sum(re.fullmatch(pattern, level) is not None for level in sample)
        if 2 * fitting > len(sample):
            return form
    different = len(np.unique(known))
    return "id" if len(known) >= _FEW and 2 * different > len(known) else ""


def _categories(column: Column, rows: np.ndarray) -> int:
    return len(np.unique(column.values[rows][~column.missing[rows]]))


def _summary(columns: Sequence[Column], rows: np.ndarray) -> Note:
    described = []
    for column in columns[:_DETAILED]:
        values, missing = column.values[rows], column.missing[rows]
        about = f"{_categories(column, rows):,} categories"
        if column.kind == "number":
            about = "numbers"
            if not missing.all():
                about += f" from {np.nanmin(values):.6g} to {np.nanmax(values):.6g}"
        if missing.any():
            about += f", {missing.mean():.1%} missing"
        described.append(f"{column.name[:60]!r} ({about})")
    rest = columns[_DETAILED:]
    if rest:
        numbers = sum(column.kind == "number" for column in rest)
        others = len(rest) - numbers
        described.append(
            f"and {len(rest):,} more ({numbers:,} of numbers, {others:,} of categories)"
        )
    return Note(f"inputs: {', '.join(described)}")


def label_notes(
    target: Column,
    classes: Sequence[str],
    train: np.ndarray,
    test: np.ndarray,
    *,
    guessed: bool,
) -> list[Note]:
    """Report the task, and warn of what is doubtful about it.

    Args:
        target: the label.
        classes: their names; empty where the label is a real value.
        train: ``(k,)`` targets of the training split.
        test: ``(m,)`` targets of the test split.
        guessed: whether the task was guessed.
    """
    name = repr(target.name[:60])
    if not classes:
        both = np.concatenate([train, test])
        text = f"label {name}: real values from {both.min():.6g} to {both.max():.6g}"
        different = len(np.unique(both))
        doubtful = guessed and bool((both == np.floor(both)).all()) and 2 * different <= len(both)
        if doubtful:
            text += (
                f", {different:,} different whole numbers; pass task=classification if they are "
                "classes"
            )
        return [Note(text, doubtful)]
    notes = [Note(f"label {name}: {len(classes):,} classes, {listed(classes)}")]
    equal: dict[Decimal, list[str]] = {}
    for text in classes:
        if number(text) is not None:
            equal.setdefault(Decimal(text), []).append(text)
    for same in [same for same in equal.values() if len(same) > 1][:5]:
        notes.append(
            Note(f"label {name}: the classes {listed(same)} are the same number", doubtful=True)
        )
    return notes


def unseen_note(unseen: Mapping[str, int], rows: int) -> Note:
    """Warn of categories that the training split lacks.

    Example:
        >>> unseen_note({"color": 12}, 100).text
        "categories that are not in the training split are encoded as zeros: 'color' in 12 of \
100 rows"
    """
    worst = sorted(unseen, key=lambda name: -unseen[name])
    shown = ", ".join(f"{name[:60]!r} in {unseen[name]:,} of {rows:,} rows" for name in worst[:5])
    more = f", and {len(worst) - 5:,} more columns" if len(worst) > 5 else ""
    return Note(
        f"categories that are not in the training split are encoded as zeros: {shown}{more}",
        doubtful=True,
    )
