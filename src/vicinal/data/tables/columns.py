"""The columns of tables: selected by name, parsed, and turned into inputs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from vicinal.data.dataset import Note
from vicinal.data.tables.delimited_text import Kind, Table, number
from vicinal.errors import UserError

LARGEST = float(np.finfo(np.float32).max)

_SHOWN = 5  # names in an error or a note
MISSING = ("?", "NA", "NaN", "nan", "null")


class Spelling(NamedTuple):
    """How the cells of a table are written.

    Args:
        missing: the marks of a missing value, besides the empty cell.
        decimal: the decimal mark.
        thousands: the separator of groups of three digits, or the empty string.
    """

    missing: tuple[str, ...] = MISSING
    decimal: str = "."
    thousands: str = ""


class Column(NamedTuple):
    """A parsed column.

    Args:
        name: its name.
        kind: whether it has numbers or categories.
        values: ``(n,)`` float64: the numbers, NaN where missing; or the index of each category in
            ``levels``, and ``len(levels)`` where missing.
        missing: ``(n,)`` bool.
        bad: ``(n,)`` bool, cells of a number column that are not numbers within float32.
        text: a ``pyarrow.LargeStringArray`` ``(n,)``, null where missing.
        levels: the categories, sorted; empty for numbers.
    """

    name: str
    kind: Kind
    values: np.ndarray
    missing: np.ndarray
    bad: np.ndarray
    text: Any
    levels: tuple[str, ...] = ()


def parse_column(
    name: str, text: Any, kind: Kind | None, *, spelling: Spelling, deciding: int
) -> Column:
    """Parse a column of text.

    Args:
        name: its name.
        text: a ``pyarrow.LargeStringArray`` ``(n,)``.
        kind: its kind; by default numbers if more than half of the cells that are not missing are
            numbers, and categories otherwise.
        spelling: how cells are written.
        deciding: the number of first rows that decide the kind.

    Example:
        >>> import pyarrow as pa
        >>> text = pa.array(["1", "?", "x", "3", "4"], pa.large_string())
        >>> sizes = parse_column("size", text, None, spelling=Spelling(), deciding=5)
        >>> sizes.kind, sizes.values.tolist(), sizes.bad.tolist()
        ('number', [1.0, nan, nan, 3.0, 4.0], [False, False, True, False, False])
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    absent = pc.is_in(text, value_set=pa.array(["", *spelling.missing], pa.large_string()))
    text = pc.if_else(absent, pa.scalar(None, pa.large_string()), text)
    missing = text.is_null().to_numpy(zero_copy_only=False)
    if kind != "category":
        values = _numbers(_plain(text, spelling))
        bad = ~missing & np.isnan(values)
        counted = int((~missing[:deciding]).sum())
        if kind == "number" or not counted or 2 * int(bad[:deciding].sum()) < counted:
            return Column(name, "number", values, missing, bad, text)
    levels, values = _encoded(text)
    return Column(name, "category", values, missing, np.zeros(len(text), dtype=bool), text, levels)


def _encoded(text: Any) -> tuple[tuple[str, ...], np.ndarray]:
    encoded = text.dictionary_encode()
    found = np.array([*encoded.dictionary.to_pylist()], dtype=object)
    order = np.argsort(found)
    place = np.empty(len(found) + 1)
    place[order] = np.arange(len(found))
    place[-1] = len(found)
    return tuple(found[order]), place[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


def _plain(text: Any, spelling: Spelling) -> Any:
    """Return numbers with a decimal point and without separators; other cells become ``x``."""
    import pyarrow.compute as pc

    if spelling.decimal == "." and not spelling.thousands:
        return text
    decimal, separator = re.escape(spelling.decimal), re.escape(spelling.thousands)
    whole = rf"[0-9]{{1,3}}({separator}[0-9]{{3}})+|[0-9]+" if spelling.thousands else "[0-9]+"
    form = rf"^[+-]?(({whole})({decimal}[0-9]*)?|{decimal}[0-9]+)([eE][+-]?[0-9]+)?$"
    written = pc.match_substring_regex(text, form)
    if spelling.thousands:
        text = pc.replace_substring(text, spelling.thousands, "")
    return pc.if_else(written, pc.replace_substring(text, spelling.decimal, "."), "x")


def _numbers(text: Any) -> np.ndarray:
    """Return ``(n,)`` float64, NaN for cells that are not numbers within float32."""
    import pyarrow as pa

    try:
        values = text.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:  # some cell is no number
        encoded = text.dictionary_encode()
        known = [number(cell) for cell in encoded.dictionary.to_pylist()]
        spelled = np.array([np.nan if value is None else value for value in [*known, None]], float)
        values = spelled[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return np.where(np.abs(values) <= LARGEST, values, np.nan)


def fit_columns(columns: Sequence[Column], train: np.ndarray) -> dict[str, Any]:
    """Fit the preparation of columns to the training rows, as plain values.

    Args:
        columns: ``(n,)`` each, without bad cells in the rows that are used.
        train: ``(k,)`` int64, rows of the training split.

    Example:
        >>> none = np.zeros(2, dtype=bool)
        >>> size = Column("size", "number", np.array([1.0, 3.0]), none, none, None)
        >>> fit_columns([size], np.array([0, 1]))["numbers"]
        {'columns': ['size'], 'mean': [2.0], 'scale': [1.0]}
    """
    numbers = [column for column in columns if column.kind == "number"]
    others = [column for column in columns if column.kind == "category"]
    mean, scale = _mean_and_scale(numbers, train)
    return {
        "numbers": {
            "columns": [column.name for column in numbers],
            "mean": mean.tolist(),
            "scale": scale.tolist(),
        },
        "categories": {
            "columns": [column.name for column in others],
            "values": [_seen(column, train) for column in others],
        },
    }


def _mean_and_scale(columns: Sequence[Column], train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std, ``(columns,)`` float64 each; the std of a constant column is 0."""
    from sklearn.preprocessing import StandardScaler

    mean, scale = np.zeros((2, len(columns)))
    if not columns:
        return mean, scale
    known = np.stack([column.values[train] for column in columns], axis=1)
    least = np.where(np.isnan(known), np.inf, known).min(axis=0)
    most = np.where(np.isnan(known), -np.inf, known).max(axis=0)
    varies = least < most  # neither constant nor all missing
    if varies.any():
        scaler = StandardScaler().fit(known[:, varies])
        mean[varies], scale[varies] = scaler.mean_, scaler.scale_
    constant = least == most
    mean[constant] = least[constant]
    return mean, scale


def _seen(column: Column, rows: np.ndarray) -> list[str | None]:
    levels = (*column.levels, None)
    return [levels[int(k)] for k in np.unique(column.values[rows])]


def input_bytes(preparation: Mapping[str, Any], rows: int) -> int:
    """Return the bytes that the inputs of some rows take."""
    values = preparation["categories"]["values"]
    return 4 * rows * (len(preparation["numbers"]["columns"]) + sum(map(len, values)))


def apply_columns(
    columns: Sequence[Column], preparation: Mapping[str, Any], rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Turn rows into inputs by the preparation of ``fit_columns``.

    Args:
        columns: the columns of the preparation, in its order within each kind.
        preparation: ``numbers`` and ``categories``.
        rows: ``(k,)`` int64.

    Returns:
        Inputs ``(k, features)`` float32, the numbers first; whether a number is too far from the
        mean for float32, ``(k, numbers)`` bool; and for each category column with categories that
        the preparation does not have, the number of such cells.

    Raises:
        UserError: if the preparation does not fit the columns.
    """
    numbers = [column for column in columns if column.kind == "number"]
    others = [column for column in columns if column.kind == "category"]
    mean = np.array(preparation["numbers"]["mean"], dtype=np.float64)
    scale = np.array(preparation["numbers"]["scale"], dtype=np.float64)
    known = [list(values) for values in preparation["categories"]["values"]]
    if not len(numbers) == len(mean) == len(scale) or len(others) != len(known):
        raise UserError("the preparation is damaged: its lists differ in length")
    inputs = np.zeros((len(rows), len(numbers) + sum(map(len, known))), dtype=np.float32)
    far = np.zeros((len(rows), len(numbers)), dtype=bool)
    for k, column in enumerate(numbers):
        if scale[k] > 0:
            with np.errstate(over="ignore"):
                scaled = (column.values[rows] - mean[k]) / scale[k]
            far[:, k] = np.abs(scaled) > LARGEST
            inputs[:, k] = np.where(np.isnan(scaled) | far[:, k], 0, scaled)
    unseen, start = {}, len(numbers)
    for column, values in zip(others, known, strict=True):
        place = {value: k for k, value in enumerate(values)}
        places = np.array([place.get(level, -1) for level in (*column.levels, None)])
        found = places[column.values[rows].astype(np.int64)]
        seen = np.flatnonzero(found >= 0)
        inputs[seen, start + found[seen]] = 1
        start += len(values)
        if len(seen) < len(rows):
            unseen[column.name] = len(rows) - len(seen)
    return inputs, far, unseen


def aligned(
    table: Table, names: Sequence[str], *, of: str, label: int | None = None
) -> tuple[Table, list[Note]]:
    """Select and order the columns of a table by name.

    Columns of the same name keep their order among themselves.

    Args:
        table: has these columns, and maybe others.
        names: names of the columns to select.
        of: the owner of these names, for errors and notes.
        label: index in ``table`` of the label, which is appended and matches no name.

    Returns:
        The table, and a note if columns were ignored.

    Raises:
        UserError: if columns are missing.

    Example:
        >>> import numpy as np
        >>> table = Table("t.csv", ("b", "c", "a"), [1, 2, 3], (None,) * 3, np.arange(0), {})
        >>> chosen, notes = aligned(table, ["a", "b"], of="the training")
        >>> chosen.columns, notes[0].text
        ([3, 1], "t.csv: ignored the column 'c', which the training does not have")
    """
    if label is None and tuple(names) == table.names:
        return table, []
    indices = {key: i for i, key in enumerate(_numbered(table.names)) if i != label}
    chosen = [indices.get(key, -1) for key in _numbered(names)]
    missing = [name for name, index in zip(names, chosen, strict=True) if index < 0]
    if missing:
        raise UserError(
            f"{table.file} has no column {listed(missing)}, which {of} has; it has "
            f"{listed(table.names)}. Give it the same header and columns, in any order."
        )
    chosen += [] if label is None else [label]
    surplus = [table.names[i] for i in sorted(set(range(len(table.names))) - set(chosen))]
    notes = []
    if surplus:
        word = "column" if len(surplus) == 1 else "columns"
        notes = [
            Note(f"{table.file}: ignored the {word} {listed(surplus)}, which {of} does not have")
        ]
    return (
        replace(
            table,
            names=tuple(table.names[i] for i in chosen),
            columns=[table.columns[i] for i in chosen],
            kinds=tuple(table.kinds[i] for i in chosen),
        ),
        notes,
    )


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    count: Counter[str] = Counter()
    keys = []
    for name in names:
        keys.append((name, count[name]))
        count[name] += 1
    return keys


def listed(names: Sequence[str]) -> str:
    """Return the first five names as text.

    Example:
        >>> listed([str(k) for k in range(1000)])
        "'0', '1', '2', '3', '4' and 995 more"
    """
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name[:60]) for name in names[:_SHOWN]) + more
