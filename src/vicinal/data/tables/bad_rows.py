"""The rows of tables that cannot be used, each with an error message."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from vicinal.data.dataset import Note, SkippedExamples
from vicinal.data.tables.columns import Column, Spelling
from vicinal.data.tables.notes import missing_option
from vicinal.data.tables.table import Table, listed, number
from vicinal.errors import UserError

_MOST = 3.4e38


def _marks(spelling: Spelling) -> str:
    """Return how numbers are written, if that is unusual."""
    marks = [f"decimal={spelling.decimal}"] * (spelling.decimal != ".")
    marks += [f"thousands={spelling.thousands}"] * bool(spelling.thousands)
    return f" (with {' and '.join(marks)})" if marks else ""


Rare = Literal["error", "train", "drop"]


class BadRows:
    """The rows that cannot be used, with an error message for each.

    Args:
        tables: the table, or the training table and the test table.
        target: the column with the label; None for rows to predict, which have none.
        features: their other columns.
        together: the column of groups, if there is one.
        spelling: how cells are written.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        target: Column | None,
        features: Sequence[Column],
        together: Column | None = None,
        spelling: Spelling = Spelling(),  # noqa: B008 (immutable)
    ) -> None:
        """Find the cells that cannot be used."""
        self._tables = tables
        self._files = [table.file for table in tables]
        self._messages = [dict(table.bad) for table in tables]
        self._table = np.repeat(np.arange(len(tables)), [len(table.rows) for table in tables])
        self._row = np.concatenate([table.rows for table in tables])
        self._good = np.concatenate([~np.isin(t.rows, list(t.bad)) for t in tables])
        for column in (*([target] if target else ()), *features):
            wrong = np.flatnonzero(column.bad).tolist()
            counts = Counter(column.text[i].as_py() for i in wrong)
            for i in wrong:
                cell = column.text[i].as_py()
                expected = "a number"
                if (value := number(cell)) is not None and abs(value) > _MOST:
                    expected = "a number up to 3.4e38"
                expected += _marks(spelling)
                options = ", or list the column in categories" if target else ""
                if column is target:
                    options = ", or pass task=classification if it is a class"
                if target and re.search(r"\d[,.' ]\d", cell):
                    options += ", or add the option decimal=CHARACTER or thousands=CHARACTER"
                elif target and counts[cell] > 1 and value is None:
                    markers = missing_option([cell[:40]], spelling)
                    options += f", or add it to the markers of missing values, {markers}"
                self._add(
                    i,
                    f"expected {expected} in column {column.name!r}, got {cell[:40]!r}. Correct "
                    f"it{options}.",
                )
        for what, required in (("label", target), ("group", together)):
            if required is not None:
                self.exclude_missing(what, required)

    def exclude_missing(self, what: str, column: Column) -> None:
        """Exclude the rows in which a column is empty; ``what`` is its part in the data set."""
        for i in np.flatnonzero(column.missing).tolist():
            if cell := self._cell(i, column.name):
                self._add(
                    i,
                    f"the {what} {column.name!r} is {cell[:40]!r}, which marks a missing value. "
                    f"Delete the row, or, if it is a {what}, pass missing= with other markers.",
                )
            else:
                self._add(i, f"the {what} {column.name!r} is missing. Add it, or delete the row.")

    def _cell(self, i: int, name: str) -> str:
        """Return the cell of a row as it is in the file, ``""`` without one column of that name."""
        k = self._table[i]
        if self._tables[k].names.count(name) != 1:
            return ""
        column = self._tables[k].columns[self._tables[k].names.index(name)]
        return str(column[i - int(np.searchsorted(self._table, k))].as_py() or "")

    def good(self, k: int) -> np.ndarray:
        """Return the usable rows of one table, as indices into the rows of all."""
        return np.flatnonzero(self._good & (self._table == k))

    def _place(self, i: int) -> str:
        return f"{self._files[self._table[i]]} row {self._row[i]}"

    def _add(self, i: int, message: str) -> None:
        messages = self._messages[self._table[i]]
        messages.setdefault(int(self._row[i]), f"{self._place(i)}: {message}")
        self._good[i] = False

    def exclude_unknown(
        self, label: Column, targets: np.ndarray, rare: Rare, *, trained: bool
    ) -> list[Note]:
        """Exclude rows of other classes: as bad rows, or with a note if they are to be dropped."""
        notes = []
        where = "the training table" if trained else self._files[0]
        for k, file in enumerate(self._files):
            unknown = self.good(k)[targets[self.good(k)] < 0]
            names = [label.levels[int(level)] for level in label.values[unknown]]
            if rare == "drop" and names and (k == 0 or trained):
                self._good[unknown] = False
                text = (
                    f"rare=drop skipped {len(names):,} rows of class {listed(sorted(set(names)))}"
                )
                notes.append(Note(f"{file}: {text}"))
                continue
            for i, name in zip(unknown, names, strict=True):
                self._add(
                    i,
                    f"class {name[:40]!r} of column {label.name!r} is not in {where}. Add "
                    "examples of it there.",
                )
        return notes

    def exclude_infinite(
        self, inputs: np.ndarray, rows: np.ndarray, features: Sequence[Column], skip_bad: bool
    ) -> tuple[np.ndarray, list[str]]:
        """Return the positions of the rows with finite inputs, and messages for the others."""
        finite = np.isfinite(inputs)
        names = [column.name for column in features if column.kind == "number"]
        skips = SkippedExamples(skip_bad)
        for k in np.flatnonzero(~finite.all(axis=1)).tolist():
            where = f"{self._place(rows[k])}: column {names[int(finite[k].argmin())]!r}"
            skips(
                UserError(
                    f"{where} has a value that is too far from those of the training split for "
                    "float32. Correct it, or drop the column."
                )
            )
        return np.flatnonzero(finite.all(axis=1)), skips.sentences

    def raised_or_skipped(self, k: int, skip_bad: bool) -> tuple[str, ...]:
        """Raise an error for the first bad row of a table, or return the messages of all."""
        skips = SkippedExamples(skip_bad)
        for row in sorted(self._messages[k]):
            skips(UserError(self._messages[k][row]))
        if not len(self.good(k)):
            raise UserError(f"{self._files[k]} has no usable row. Check its cells.")
        return tuple(skips.sentences)
