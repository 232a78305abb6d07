"""Parse the columns of a table, and turn them into inputs as the training split decides."""

import hashlib
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, model_validator
from torch import Tensor

from vicinal.data.tables.table import Kind, number
from vicinal.errors import UserError

_LARGEST = float(np.finfo(np.float32).max)


class Spelling(NamedTuple):
    """How the cells of a table are written.

    Args:
        missing: the markers of a missing value, in addition to the empty cell.
        decimal: the decimal mark.
        thousands: the separator of groups of three digits, or the empty string.
    """

    missing: Sequence[str] = (
        *("?", "NA", "N/A", "n/a", "#N/A", "<NA>"),
        *("NaN", "nan", "null", "NULL"),
    )
    decimal: str = "."
    thousands: str = ""


class Column(NamedTuple):
    """A parsed column.

    Args:
        name: its name.
        kind: whether it has numbers or categories.
        values: ``(n,)`` float64. Numbers, NaN where a cell is missing or bad; or the index of each
            category in ``levels``, and ``len(levels)`` where it is missing.
        text: a ``pyarrow.LargeStringArray`` ``(n,)``, null where missing.
        levels: the categories, sorted; empty for numbers.
    """

    name: str
    kind: Kind
    values: np.ndarray
    text: Any
    levels: tuple[str, ...] = ()

    @property
    def missing(self) -> np.ndarray:
        """Whether each cell is missing, ``(n,)`` bool."""
        return np.array(self.text.is_null(), dtype=np.bool_)

    @property
    def bad(self) -> np.ndarray:
        """Whether each cell of a number column is not a number within float32, ``(n,)`` bool."""
        return np.array(np.isnan(self.values) & ~self.missing)


def parse_column(
    name: str, text: Any, kind: Kind | None, spelling: Spelling, *, deciding: int | None = None
) -> Column:
    """Parse a column of text.

    Args:
        name: its name.
        text: a ``pyarrow.LargeStringArray`` ``(n,)``.
        kind: its kind; by default numbers if more than half of the cells that are not missing are
            numbers, and categories otherwise.
        spelling: how cells are written.
        deciding: the number of first rows that decide the kind; None for all.

    Example:
        >>> import pyarrow as pa
        >>> text = pa.array(["1", "?", "x", "3", "4"], pa.large_string())
        >>> sizes = parse_column("size", text, None, Spelling())
        >>> sizes.kind, sizes.values.tolist(), sizes.bad.tolist()
        ('number', [1.0, nan, nan, 3.0, 4.0], [False, False, True, False, False])
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    absent = pc.is_in(text, value_set=pa.array(["", *spelling.missing], pa.large_string()))
    text = pc.if_else(absent, pa.scalar(None, text.type), text)
    if kind != "category":
        values, known_text = _numbers(text, spelling), text
        # A marker such as -999 stands for -999.0, too, as programs write columns of numbers.
        marks = _numbers(pa.array(spelling.missing, text.type), spelling)
        if len(marks := marks[~np.isnan(marks)]):
            marked = np.isin(values, marks)
            values[marked] = np.nan
            known_text = pc.if_else(marked, pa.scalar(None, text.type), text)
        column = Column(name, "number", values, known_text)
        known = ~column.missing[:deciding]
        if kind == "number" or not known.any() or column.bad[:deciding].sum() < known.sum() / 2:
            return column
    levels = sorted(text.unique().drop_null().to_pylist())
    indices = pc.index_in(text, value_set=pa.array(levels, text.type)).fill_null(len(levels))
    return Column(name, "category", indices.to_numpy().astype(np.float64), text, tuple(levels))


def _numbers(text: Any, spelling: Spelling) -> np.ndarray:
    """Return ``(n,)`` float64, NaN for cells that are not numbers within float32."""
    import pyarrow as pa
    import pyarrow.compute as pc

    decimal, separator = re.escape(spelling.decimal), re.escape(spelling.thousands)
    whole = rf"[0-9]{{1,3}}({separator}[0-9]{{3}})+|[0-9]+" if spelling.thousands else "[0-9]+"
    form = rf"^[+-]?(({whole})({decimal}[0-9]*)?|{decimal}[0-9]+)([eE][+-]?[0-9]+)?$"
    text = pc.if_else(pc.match_substring_regex(text, form), text, pa.scalar(None, text.type))
    if spelling.thousands:
        text = pc.replace_substring(text, spelling.thousands, "")
    if spelling.decimal != ".":
        text = pc.replace_substring(text, spelling.decimal, ".")
    values = text.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.abs(values) <= _LARGEST, values, np.nan)


def as_known(text: Any, kind: Kind | None, values: Sequence[str | None]) -> Any:
    """Return a column of categories as the training table writes them.

    Files have True or TRUE, frames and Parquet files have booleans; a column that has some of the
    values is not changed. Numbers of frames and Parquet files become the category that is the same
    number, if there is one.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind == "number":
        equal: dict[Decimal | None, list[str]] = {}
        for value in values:
            if value is not None and (found := number(value)) is not None:
                equal.setdefault(found, []).append(value)
        cells = text.to_pylist()
        same = {cell: equal.get(number(cell), []) for cell in {*cells} - {None, *values}}
        ones = {cell: one[0] for cell, one in same.items() if len(one) == 1}
        return pa.array([ones.get(cell, cell) for cell in cells], text.type)
    known = {value for value in values if value is not None}
    own = pa.array([*known], text.type)
    lower = pc.utf8_lower(text)
    for true, false in (("True", "False"), ("TRUE", "FALSE"), ("true", "false")):
        if known and known <= {true, false} and not pc.any(pc.is_in(text, own)).as_py():
            text = pc.if_else(pc.fill_null(pc.equal(lower, "true"), False), true, text)
            text = pc.if_else(pc.fill_null(pc.equal(lower, "false"), False), false, text)
    return text


class _Plain(BaseModel):
    model_config = ConfigDict(strict=True)


class NumberColumns(_Plain):
    """The columns of numbers of a preparation; the scale of a constant column is 0."""

    columns: list[str]
    mean: list[FiniteFloat]
    scale: list[FiniteFloat]


class CategoryColumns(_Plain):
    """The columns of categories of a preparation, and the values of each, sorted."""

    columns: list[str]
    values: list[list[str | None]]


class TablePreparation(_Plain):
    """How the rows of a table become inputs and targets, as a checkpoint stores it.

    Args:
        kind: distinguishes it from the preparation of images or recordings.
        sha256: hash of the rows of the training table.
        label: name of the column to predict.
        classes: names of the classes, none if the label is a real value.
        missing: see ``Spelling``; likewise ``decimal`` and ``thousands``.
        numbers: columns that are normalized.
        categories: columns that are one-hot encoded, after the numbers.
        group: name of the column whose rows belong together, None if there is none.
        header: whether the training table has names of its columns.
        own_test: whether the test split is a file of its own.
        group_sha256: hash of the groups of the rows, empty without groups.
    """

    kind: Literal["table"] = "table"
    sha256: str
    label: str
    classes: list[str]
    missing: list[str]
    decimal: str = "."
    thousands: str = ""
    numbers: NumberColumns
    categories: CategoryColumns
    group: str | None = None
    header: bool = True
    own_test: bool = False
    group_sha256: str = ""

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        numbers, categories = self.numbers, self.categories
        if not len(numbers.columns) == len(numbers.mean) == len(numbers.scale):
            raise ValueError("numbers: columns, mean and scale differ in length")
        if len(categories.columns) != len(categories.values):
            raise ValueError("categories: columns and values differ in length")
        return self

    @property
    def widths(self) -> list[int]:
        """The number of inputs that each column of categories becomes."""
        return [len(values) for values in self.categories.values]


class Trained(Protocol):
    """What the preparation of a training says about its table."""

    sha256: str
    own_test: bool
    group: str | None
    group_sha256: str


def has_other_rows(given: Trained | None, sha256: str, group_sha256: str, file: str) -> bool:
    """Return whether a table without a test file has other rows than that of the training.

    Raises:
        UserError: if it has the same rows, but all of them were trained on, or they were split by
            other groups.
    """
    if given is None or given.sha256 != sha256:
        return given is not None
    if given.own_test:
        raise UserError(
            f"{file}: expected a table with test rows, got the one whose rows were all used for "
            "training, since the test split was another file. Name that file, or add test=FILE."
        )
    if given.group_sha256 != group_sha256:
        raise UserError(
            f"{file}: these are the training rows, but the column {given.group!r}, by whose groups "
            "they were split, is missing or has changed. Restore it."
        )
    return False


def hash_of_groups(groups: Tensor | None, rows: int) -> str:
    """Return a hash of the groups of the first rows, as they are split; empty without groups."""
    if groups is None:
        return ""
    codes = np.unique(groups[:rows].numpy(), return_inverse=True)[1]
    return hashlib.sha256(codes.astype(np.int64).tobytes()).hexdigest()


def fit_columns(
    columns: Sequence[Column], train: np.ndarray
) -> tuple[NumberColumns, CategoryColumns]:
    """Fit the preparation of columns to the training rows.

    Args:
        columns: ``(n,)`` each, without bad cells in the rows that are used.
        train: ``(k,)`` int64, rows of the training split.

    Example:
        >>> size = Column("size", "number", np.array([1.0, 3.0]), None)
        >>> fit_columns([size], np.array([0, 1]))[0]
        NumberColumns(columns=['size'], mean=[2.0], scale=[1.0])
    """
    from sklearn.preprocessing import StandardScaler

    numbers = [column for column in columns if column.kind == "number"]
    others = [column for column in columns if column.kind == "category"]
    mean, scale = np.zeros((2, len(numbers)))
    if numbers:
        known = np.stack([column.values[train] for column in numbers], axis=1)
        least, most = np.fmin.reduce(known), np.fmax.reduce(known)  # NaN if all are missing
        mean = np.where(least == most, least, 0.0)
        if (varies := least < most).any():
            scaler = StandardScaler().fit(known[:, varies])
            mean[varies], scale[varies] = scaler.mean_, scaler.scale_
    values = [[(*c.levels, None)[int(k)] for k in np.unique(c.values[train])] for c in others]
    names = [[column.name for column in group] for group in (numbers, others)]
    return (
        NumberColumns(columns=names[0], mean=mean.tolist(), scale=scale.tolist()),
        CategoryColumns(columns=names[1], values=values),
    )


def apply_columns(
    columns: Sequence[Column], preparation: TablePreparation, rows: np.ndarray
) -> tuple[np.ndarray, dict[str, tuple[int, str]]]:
    """Turn rows into inputs.

    Args:
        columns: the columns of the preparation, in its order within each kind.
        preparation: from the training split.
        rows: ``(k,)`` int64.

    Returns:
        Inputs ``(k, features)`` float32, the numbers first, infinite if a number is too far from
        the mean for float32; and for each column with categories that the preparation does not
        have, the number of such cells, and the first of these categories.
    """
    numbers = [column for column in columns if column.kind == "number"]
    others = [column for column in columns if column.kind == "category"]
    inputs = np.zeros((len(rows), len(numbers) + sum(preparation.widths)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for k, column in enumerate(numbers):
            mean, scale = preparation.numbers.mean[k], preparation.numbers.scale[k]
            if scale > 0:
                scaled = (column.values[rows] - mean) / scale
                inputs[:, k] = np.where(np.isnan(scaled), 0, scaled)
    unseen, start = {}, len(numbers)
    for column, values in zip(others, preparation.categories.values, strict=True):
        place = {value: k for k, value in enumerate(values)}
        places = np.array([place.get(level, -1) for level in (*column.levels, None)])
        found = places[column.values[rows].astype(np.int64)]
        seen = np.flatnonzero(found >= 0)
        inputs[seen, start + found[seen]] = 1
        start += len(values)
        if len(seen) < len(rows):
            first = int(column.values[rows[found < 0][0]])
            known = 0 <= first < len(column.levels)  # else the cell has no value
            example = repr(column.levels[first][:60]) if known else "no value"
            unseen[column.name] = len(rows) - len(seen), example
    return inputs, unseen
