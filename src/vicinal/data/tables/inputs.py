"""From columns of text to inputs: numbers standardised, categories one-hot."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import IN_MEMORY
from vicinal.data.tables.cells import Kind, number
from vicinal.errors import UserError

LARGEST = float(np.finfo(np.float32).max)


class Column(NamedTuple):
    """A column, understood.

    Args:
        name: of the column.
        kind: what it holds.
        values: ``(n,)`` float64: the numbers, NaN where missing; or of each category its place
            among the sorted texts, and the place behind the last where missing.
        missing: ``(n,)`` bool.
        bad: ``(n,)`` bool, cells of a column of numbers that are none a float32 can hold.
        text: a ``pyarrow.LargeStringArray`` ``(n,)``, null where missing.
    """

    name: str
    kind: Kind
    values: np.ndarray
    missing: np.ndarray
    bad: np.ndarray
    text: Any


def understood(
    name: str, text: Any, kind: Kind | None, *, markers: Sequence[str], deciding: int
) -> Column:
    """Return what a column of text holds.

    Args:
        name: of the column.
        text: a ``pyarrow.LargeStringArray`` ``(n,)``.
        kind: what it holds; by default numbers, if more than half of the cells that are not
            missing do, and categories otherwise.
        markers: the texts that stand for a missing cell.
        deciding: how many rows, from the first, are looked at to find the kind.

    Example:
        >>> import pyarrow as pa
        >>> text = pa.array(["1", "?", "x", "3", "4"], pa.large_string())
        >>> sizes = understood("size", text, None, markers=["?"], deciding=5)
        >>> sizes.kind, sizes.values.tolist(), sizes.bad.tolist()
        ('number', [1.0, nan, nan, 3.0, 4.0], [False, False, True, False, False])
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    absent = pc.is_in(text, value_set=pa.array(markers, pa.large_string()))
    text = pc.if_else(absent, pa.scalar(None, pa.large_string()), text)
    missing = text.is_null().to_numpy(zero_copy_only=False)
    bad = np.zeros(len(text), dtype=bool)
    if kind != "category":
        values = _numbers(text)
        bad = ~missing & np.isnan(values)
        counted = int((~missing[:deciding]).sum())
        if kind == "number" or not counted or 2 * int(bad[:deciding].sum()) < counted:
            return Column(name, "number", values, missing, bad, text)
    encoded = text.dictionary_encode()
    texts = np.array([*encoded.dictionary.to_pylist()], dtype=object)
    place = np.empty(len(texts) + 1)
    place[np.argsort(texts)] = np.arange(len(texts))
    place[-1] = len(texts)
    values = place[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return Column(name, "category", values, missing, np.zeros(len(text), dtype=bool), text)


def _numbers(text: Any) -> np.ndarray:
    """Return ``(n,)`` float64, NaN for what is no number that a float32 can hold."""
    import pyarrow as pa

    try:
        values = text.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:  # some cell is no number
        encoded = text.dictionary_encode()
        known = [number(cell) for cell in encoded.dictionary.to_pylist()]
        spelled = np.array([np.nan if value is None else value for value in [*known, None]])
        values = spelled[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return np.where(np.abs(values) <= LARGEST, values, np.nan)


def prepared(columns: Sequence[Column], train: np.ndarray, test: np.ndarray) -> list[Tensor]:
    """Return the inputs of both parts, made by what the training part alone holds.

    Args:
        columns: ``(n,)`` each; no cell may be bad among the rows that are used.
        train: ``(k,)`` int64, rows of the training part.
        test: ``(m,)`` int64, rows of the test part.

    Returns:
        ``(k, features)`` and ``(m, features)`` float32, the numbers first. How they come about is
        said in ``vicinal.data.tables.load_table``.

    Raises:
        UserError: if they would not fit into memory, or a test value is so far from the training
            values that a float32 cannot say how far.
    """
    numbers = [column for column in columns if column.kind == "number"]
    others = [column for column in columns if column.kind == "category"]
    widths = [len(np.unique(column.values[train])) for column in others]
    size = 4 * (len(train) + len(test)) * (len(numbers) + sum(widths))
    if size > IN_MEMORY:
        hint = "drop some columns"
        if others:
            widest = int(np.argmax(widths))
            hint = (
                f"column {others[widest].name!r} alone has {widths[widest]:,} categories: drop it "
                "if it names rows"
            )
        raise UserError(f"the inputs would take {size:,} bytes, over {IN_MEMORY:,}; {hint}")
    blocks = [_standardised(numbers, train, test)] if numbers else []
    blocks += [_one_hot(others, train, test)] if others else []
    return [torch.from_numpy(np.concatenate(part, axis=1)) for part in zip(*blocks, strict=True)]


def _standardised(
    columns: Sequence[Column], train: np.ndarray, test: np.ndarray
) -> list[np.ndarray]:
    from sklearn.preprocessing import StandardScaler

    known, asked = (
        np.stack([column.values[rows] for column in columns], axis=1) for rows in (train, test)
    )
    least = np.where(np.isnan(known), np.inf, known).min(axis=0)
    most = np.where(np.isnan(known), -np.inf, known).max(axis=0)
    varies = least < most  # neither constant nor missing altogether
    inputs = [np.zeros(part.shape, dtype=np.float32) for part in (known, asked)]
    if varies.any():
        scaler = StandardScaler().fit(known[:, varies])
        for part, into in zip((known, asked), inputs, strict=True):
            scaled = np.nan_to_num(scaler.transform(part[:, varies]), posinf=np.inf, neginf=-np.inf)
            far = np.flatnonzero((np.abs(scaled) > LARGEST).any(axis=0))
            if len(far):
                name = columns[int(np.flatnonzero(varies)[far[0]])].name
                raise UserError(
                    f"column {name!r} has a test value too far from its training values; look for "
                    "a slip in its largest numbers, or drop it"
                )
            into[:, varies] = scaled
    return inputs


def _one_hot(columns: Sequence[Column], train: np.ndarray, test: np.ndarray) -> list[np.ndarray]:
    from sklearn.preprocessing import OneHotEncoder

    places = np.stack([column.values for column in columns], axis=1)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    return [encoder.fit(places[train]).transform(places[rows]) for rows in (train, test)]
