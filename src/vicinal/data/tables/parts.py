"""From tables to the parts of a data set: bad rows, targets, and who trains and who tests."""

import math
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, Part, Skips, Wanted, split
from vicinal.data.tables.cells import Kind, Table, number
from vicinal.data.tables.inputs import Column, prepared, understood
from vicinal.errors import UserError

Task = Literal["classification", "regression"]

MISSING = ("?", "NA", "NaN", "nan", "null")


def assembled(
    tables: Sequence[Table],
    *,
    label: int,
    wanted: Wanted,
    categories: Collection[int] = (),
    drop: Collection[int] = (),
    missing: Sequence[str] = MISSING,
    task: Task | None = None,
    rare_in_train: bool = False,
) -> DataSet:
    """Make a data set of one table, which is divided, or of two, the second to test on.

    Args:
        tables: one or two, with the same columns.
        label: place of the column to predict; ``categories`` and ``drop`` are places too.
        wanted: as in ``vicinal.data.tables.load_table``, where the rest is described as well.
        categories: columns that hold categories though they look like numbers.
        drop: columns to leave out.
        missing: cells that stand for nothing, beside the empty one.
        task: what is to be learned.
        rare_in_train: whether classes that are too rare for both parts are in the training part
            alone; they are refused otherwise.

    Raises:
        UserError: as ``load_table`` does.
    """
    first = tables[0]
    if label in drop:
        raise UserError(f"the label {first.names[label]!r} is in drop too; take it out there")
    if label in categories and task == "regression":
        raise UserError(f"the label {first.names[label]!r} is in categories; take it out there")
    forced: dict[int, Kind] = dict.fromkeys(categories, "category")
    if task == "regression":
        forced[label] = "number"
    columns = {
        i: _understood(tables, i, kind=forced.get(i, first.kinds[i]), missing=missing)
        for i in range(len(first.names))
        if i not in drop
    }
    target = columns.pop(label)
    if not columns:
        raise UserError(
            f"{first.file} has no column beside the label {target.name!r}; cells are divided by "
            "comma, semicolon, tab or space"
        )
    bad = _bad_rows(tables, target, list(columns.values()))
    good = [~np.isin(t.rows, list(of_one)) for t, of_one in zip(tables, bad, strict=True)]
    known = np.flatnonzero(good[0])
    classes: tuple[str, ...] = ()
    targets = torch.from_numpy(target.values.astype(np.float32))
    if _is_classification(target, known, task):
        classes, targets = _classes(target, known)
        _refuse_foreign_classes(tables, target, targets, good, bad)
    skipped = [_raised_or_skipped(of_one, wanted) for of_one in bad]
    for table, kept in zip(tables, good, strict=True):
        if not kept.any():
            raise UserError(f"{table.file} has no row that can be used; see to its cells")
    if len(classes) == 1:
        raise UserError(
            f"{first.file} has one class only, {classes[0]!r} in column {target.name!r}; "
            "a classifier needs two or more"
        )
    if len(tables) == 2:
        train, test = known, len(first.rows) + np.flatnonzero(good[1])
    else:
        divided = _divided(targets[known], classes, wanted, rare_in_train)
        train, test = (known[rows] for rows in divided)
        skipped.append(())
    inputs = prepared(list(columns.values()), train, test)
    made = zip(inputs, (train, test), skipped, strict=True)
    parts = [Part(x, targets[torch.from_numpy(rows)], said) for x, rows, said in made]
    return DataSet(classes, train=parts[0], test=parts[1])


def _understood(
    tables: Sequence[Table], i: int, *, kind: Kind | None, missing: Sequence[str]
) -> Column:
    import pyarrow as pa

    text = pa.concat_arrays([table.columns[i] for table in tables])
    name = tables[0].names[i]
    return understood(name, text, kind, markers=["", *missing], deciding=len(tables[0].rows))


def _bad_rows(
    tables: Sequence[Table], target: Column, columns: Sequence[Column]
) -> list[dict[int, str]]:
    """Return, for each table, a sentence for each row that cannot be used."""
    bad = [dict(table.bad) for table in tables]
    places = [(k, row) for k, table in enumerate(tables) for row in table.rows.tolist()]
    for column in [target, *columns]:
        for i in np.flatnonzero(column.bad):
            (k, row), cell = places[i], column.text[int(i)].as_py()
            fault = "holds numbers" if number(cell) is None else "holds numbers up to 3.4e38"
            bad[k].setdefault(
                row,
                f"{tables[k].file} row {row}: column {column.name!r} {fault}, and {cell[:40]!r} "
                "here; correct it, or list the column in categories",
            )
    for i in np.flatnonzero(target.missing):
        k, row = places[i]
        bad[k].setdefault(
            row,
            f"{tables[k].file} row {row}: the label {target.name!r} is missing; "
            "add it, or take the row out",
        )
    return bad


def _is_classification(target: Column, known: np.ndarray, task: Task | None) -> bool:
    if task is not None:
        return task == "classification"
    if target.kind == "category":
        return True
    values = target.values[known]
    different = len(np.unique(values))
    return bool((values == np.floor(values)).all()) and different <= min(20, len(values) // 2)


def _classes(target: Column, known: np.ndarray) -> tuple[tuple[str, ...], Tensor]:
    """Return the classes among the known rows, and of every row its class, -1 for any other."""
    values, firsts = np.unique(target.values[known], return_index=True)
    classes = tuple(target.text[int(i)].as_py() for i in known[firsts])
    places = np.searchsorted(values, target.values)
    places[~np.isin(target.values, values)] = -1
    return classes, torch.from_numpy(places.astype(np.int64))


def _refuse_foreign_classes(
    tables: Sequence[Table],
    target: Column,
    targets: Tensor,
    good: list[np.ndarray],
    bad: list[dict[int, str]],
) -> None:
    if len(tables) == 1:
        return
    (first, second), start = tables, len(tables[0].rows)
    foreign = good[1] & (targets[start:].numpy() < 0)
    for i in np.flatnonzero(foreign):
        row, name = int(second.rows[i]), target.text[int(start + i)].as_py()
        bad[1][row] = (
            f"{second.file} row {row}: class {name[:40]!r} of column {target.name!r} is nowhere in "
            f"{first.file}; add examples of it there"
        )
    good[1] &= ~foreign


def _raised_or_skipped(bad: dict[int, str], wanted: Wanted) -> tuple[str, ...]:
    skips = Skips(wanted.on_bad)
    for row in sorted(bad):
        skips(UserError(bad[row]))
    return tuple(skips.sentences)


def _divided(
    targets: Tensor, classes: Sequence[str], wanted: Wanted, rare_in_train: bool
) -> tuple[np.ndarray, np.ndarray]:
    fraction, seed = wanted.test_fraction, wanted.seed
    if not rare_in_train:
        return split(targets, fraction=fraction, seed=seed, classes=classes)
    # Of fewer, a share might be no example at all.
    enough = math.ceil(1 / min(fraction, 1 - fraction))
    rare = (targets.bincount() < enough)[targets].numpy()
    rest = np.flatnonzero(~rare)
    present, packed = np.unique(targets.numpy()[rest], return_inverse=True)
    names = [classes[k] for k in present]
    train, test = split(torch.from_numpy(packed), fraction=fraction, seed=seed, classes=names)
    return np.concatenate([rest[train], np.flatnonzero(rare)]), rest[test]
