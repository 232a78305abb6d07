"""Rows of tables without their labels, as inputs of a trained network."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import Note
from vicinal.data.tables.bad_rows import BadRows
from vicinal.data.tables.columns import (
    Column,
    Spelling,
    TablePreparation,
    apply_columns,
    as_known,
    parse_column,
)
from vicinal.data.tables.notes import far_notes, missing_notes, unseen_notes
from vicinal.data.tables.read_table import TEXT_FORMATS, read_table, table_of_arrow
from vicinal.data.tables.table import Table, select_columns, with_columns
from vicinal.errors import UserError

_EXAMPLES = "the examples"
"""The name in errors of rows that are not in a file."""


class NewRows(NamedTuple):
    """Prepared rows of a table.

    Args:
        inputs: ``(k, features)`` float32.
        rows: ``(k,)`` int64, the number of each row in its file, as in error messages.
        notes: what was guessed, numbers that are missing or far from those of the training split,
            and categories that the training split lacks.
        skipped: a sentence for each row that was skipped.
    """

    inputs: Tensor
    rows: np.ndarray
    notes: tuple[Note, ...]
    skipped: tuple[str, ...]


def prepare_rows(table: Table, given: TablePreparation, *, skip_bad: bool) -> NewRows:
    """Prepare the rows of a table, with or without labels, like those of the training table.

    Args:
        table: has the columns of the training table, in any order.
        given: the preparation of the training table.
        skip_bad: whether rows with bad cells are skipped instead of raising an error.

    Raises:
        UserError: if a column is missing, or a row is bad and not to be skipped.
    """
    numbers, others = given.numbers.columns, given.categories.columns
    names, spelling = [*numbers, *others], Spelling(given.missing, given.decimal, given.thousands)
    unused = {given.label, given.group} - set(names)
    if given.label in names:
        raise UserError(
            f"{table.file}: the training table had several columns {given.label!r}, one of them "
            "the label. Give its columns different names, and train again."
        )
    keep = [k for k, name in enumerate(table.names) if name not in unused]
    table = select_columns(with_columns(table, keep), names, of="the training table")
    texts = [
        *table.columns[: len(numbers)],
        *map(
            as_known,
            table.columns[len(numbers) :],
            table.kinds[len(numbers) :],
            given.categories.values,
        ),
    ]
    columns: list[Column] = [
        parse_column(name, text, "number" if k < len(numbers) else "category", spelling)
        for k, (name, text) in enumerate(zip(table.names, texts, strict=True))
    ]
    bad = BadRows([table], None, columns, spelling=spelling)
    skipped = bad.raised_or_skipped(0, skip_bad)
    good = bad.good(0)
    inputs, unseen = apply_columns(columns, given, good)
    kept, too_far = bad.exclude_infinite(inputs, good, columns, skip_bad)
    notes = (
        *table.notes,
        *missing_notes(columns[: len(numbers)], good[kept]),
        *far_notes(inputs[kept], numbers),
        *unseen_notes(unseen, len(kept)),
    )
    return NewRows(
        torch.from_numpy(inputs[kept]), table.rows[good[kept]], notes, (*skipped, *too_far)
    )


def read_new_rows(
    path: Path,
    columns: Sequence[str],
    label: str,
    *,
    header: bool = True,
    decimal: str = ".",
    max_bytes: int = MAX_BYTES,
) -> Table:
    """Read a table of new rows; it has no header if the training table had none.

    Args:
        path: path of the table.
        columns: names of the columns of the training table that become inputs.
        label: name of the label of the training table, which the new table may lack.
        header: whether the training table has names of its columns.
        decimal: the decimal mark of the training table.
        max_bytes: the most bytes of memory that the table may take.

    Raises:
        UserError: as ``read_table`` does; or if it has no rows, or has no names and too few
            columns.
    """
    file = str(path)
    known = [*columns, label]
    options: Any = {
        "file": file,
        "decimal": decimal,
        "ignored": lambda name: name not in columns,
        "max_bytes": max_bytes,
    }
    is_text = path.suffix.lower() in TEXT_FORMATS
    table = read_table(path, header=True if is_text and header else None, **options)
    # Columns without names are numbered; in a row of names they count from 0.
    named = header or (len(table.names) > 2 and table.names == _numbers(len(table.names)))
    if is_text and not named:
        table = read_table(path, header=False, **options)
        count = 1 + max(map(int, known))
        if len(table.names) < count and int(label) < count - 1:
            raise UserError(
                f"{file}: expected {count} columns as in the training table, which has no names, "
                f"got {len(table.names)}. Add a column for the label, number {label}; its "
                "cells may be empty."
            )
    if not len(table.rows) and not table.bad:
        raise UserError(f"{file} has a header, but no rows. Add rows.")
    return table


def table_of_rows(rows: Any, columns: Collection[str], *, decimal: str = ".") -> Table:
    """Convert rows in memory, such as a list of dictionaries or a data frame, to a table.

    Args:
        rows: a list of dictionaries that map names of columns to values, where a missing value is
            None or left out; or anything that ``pyarrow.table`` accepts, such as a frame of pandas
            or Polars.
        columns: names of the columns that are used; the others may have any type.
        decimal: the decimal mark of the training table.

    Raises:
        UserError: if there are no rows, or values are neither numbers nor text.

    Example:
        >>> rows = [{"size": 1.5, "color": "red"}, {"size": None}]
        >>> table = table_of_rows(rows, ["size", "color"])
        >>> table.names, [column.to_pylist() for column in table.columns]
        (('size', 'color'), [['1.5', None], ['red', None]])
    """
    import pyarrow as pa

    try:
        if isinstance(rows, Sequence):
            names = dict.fromkeys(name for row in rows for name in row)
            rows = {name: [row.get(name) for row in rows] for name in names}
        if not hasattr(rows, "__arrow_c_stream__"):
            rows = {name: pa.array(rows[name], from_pandas=True) for name in rows}
        table = table_of_arrow(
            pa.table(rows), _EXAMPLES, decimal=decimal, ignored=lambda name: name not in columns
        )
    except UserError:
        raise
    except Exception as error:  # values of several types, columns of several lengths, other objects
        raise UserError(
            f"{_EXAMPLES}: expected columns of the same length, each of numbers or of text "
            f"({error}). Convert them, or pass the path of a CSV file."
        ) from error
    if not len(table.rows):
        raise UserError(f"{_EXAMPLES}: expected rows, got none.")
    return table


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
