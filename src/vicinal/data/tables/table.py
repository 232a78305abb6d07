"""A table as columns of text, which all file formats are read into."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from vicinal.data.dataset import Note
from vicinal.errors import UserError

Kind = Literal["number", "category"]

CELL, COLUMN = 32, 10_000
"""Approximate bytes of memory for each cell and each column while a table is parsed."""

_SHOWN = 5  # names in an error or a note


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a file, as text.

    Args:
        file: its name in errors and notes.
        names: names of the columns; their numbers from "0" if the file has no names.
        columns: a ``pyarrow.LargeStringArray`` ``(n,)`` each, null if the file has no value.
        kinds: the kind of each column that the file declares, or None.
        rows: ``(n,)`` int64, the number of each row in the file, from 1. A header counts too.
        bad: an error message for each row of the file that cannot be used, by its number.
        notes: what was guessed.
        header: whether the file has names of its columns.
    """

    file: str
    names: tuple[str, ...]
    columns: list[Any]
    kinds: tuple[Kind | None, ...]
    rows: np.ndarray
    bad: dict[int, str]
    notes: tuple[Note, ...] = ()
    header: bool = True


def check_size(rows: int, columns: int, content: int, *, file: str, max_bytes: int) -> None:
    """Raise an error if a table would take too much memory.

    Example:
        >>> check_size(4, 10**6, 0, file="wide.csv", max_bytes=2 * 10**9)
        Traceback (most recent call last):
        vicinal.errors.UserError: wide.csv would take about 10,128,000,000 bytes of memory as a \
table of 4 rows and 1,000,000 columns, over the limit of 2,000,000,000. Split it, drop columns, \
or raise max_bytes (--max-bytes).
    """
    size = content + CELL * rows * columns + COLUMN * columns
    if size > max_bytes:
        raise UserError(
            f"{file} would take about {size:,} bytes of memory as a table of {rows:,} rows and "
            f"{columns:,} columns, over the limit of {max_bytes:,}. Split it, drop columns, or "
            "raise max_bytes (--max-bytes)."
        )


def damaged(file: str, form: str, error: Exception) -> UserError:
    """Return the error for a file that a library cannot parse."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"{file} cannot be read as {form} ({reason}). It may be damaged or in another format."
    )


def number(text: str) -> Decimal | None:
    """Return the number in a cell, or None; ``inf`` and ``nan`` are not numbers.

    Example:
        >>> number("-1.5e3"), number("1_000"), number("inf")
        (Decimal('-1.5E+3'), None, None)
    """
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return None
    try:
        return Decimal(text)
    except ArithmeticError:  # the exponent has twenty digits
        return None


def listed(names: Sequence[str]) -> str:
    """Return the first five names as text.

    Example:
        >>> listed([str(k) for k in range(1000)])
        "'0', '1', '2', '3', '4' and 995 more"
    """
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name[:60]) for name in names[:_SHOWN]) + more


def select_columns(
    table: Table, names: Sequence[str], *, of: str, label: int | None = None
) -> Table:
    """Select and order the columns of a table by name, with a note if others are ignored.

    Columns of the same name keep their order among themselves.

    Args:
        table: has these columns, and maybe others.
        names: names of the columns to select.
        of: the owner of these names, for errors and notes.
        label: index in ``table`` of the label, which is appended and matches no name.

    Raises:
        UserError: if columns are missing.

    Example:
        >>> table = Table("t.csv", ("b", "c", "a"), [1, 2, 3], (None,) * 3, np.arange(0), {})
        >>> chosen = select_columns(table, ["a", "b"], of="the training table")
        >>> chosen.columns, chosen.notes[0].text
        ([3, 1], "t.csv: ignored columns that are not inputs: 'c'")
    """
    indices = {key: i for i, key in enumerate(_numbered(table.names)) if i != label}
    keys = _numbered(names)
    if missing := [name for name, count in keys if (name, count) not in indices]:
        columns = f"column{'s' * (len(missing) > 1)} {listed(missing)}"
        raise UserError(
            f"{table.file} has no {columns}, which {of} has. It has the columns "
            f"{listed(table.names)}. Give it the same header and columns, in any order."
        )
    chosen = [indices[key] for key in keys] + ([] if label is None else [label])
    ignored = [table.names[i] for i in sorted(set(range(len(table.names))) - set(chosen))]
    notes = table.notes
    if ignored:
        text = f"ignored columns that are not inputs: {listed(ignored)}"
        notes = (*notes, Note(f"{table.file}: {text}"))
    return replace(with_columns(table, chosen), notes=notes)


def with_columns(table: Table, chosen: Sequence[int]) -> Table:
    """Return some of the columns of a table, by their indices."""
    return replace(
        table,
        names=tuple(table.names[i] for i in chosen),
        columns=[table.columns[i] for i in chosen],
        kinds=tuple(table.kinds[i] for i in chosen),
    )


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Pair each name with the number of times it occurred before."""
    counts: Counter[str] = Counter()
    keys = []
    for name in names:
        keys.append((name, counts[name]))
        counts[name] += 1
    return keys
