"""Turn tables into a data set: bad rows, targets, and the training and test splits."""

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, SkippedExamples, Split
from vicinal.data.tables.columns import (
    Column,
    Spelling,
    TablePreparation,
    apply_columns,
    fit_columns,
    parse_column,
)
from vicinal.data.tables.notes import column_notes, label_notes, unseen_note
from vicinal.data.tables.table import Kind, Table, listed, number, select_columns
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError

Task = Literal["classification", "regression"]
Rare = Literal["refuse", "train", "drop"]


def assemble(
    tables: Sequence[Table],
    *,
    label: int,
    load_options: LoadOptions,
    categories: Collection[int] = (),
    drop: Collection[int] = (),
    spelling: Spelling = Spelling(),  # noqa: B008 (immutable)
    task: Task | None = None,
    rare: Rare = "refuse",
) -> DataSet:
    """Make a data set of one table, which is split, or of a training and a test table.

    Args:
        tables: one or two. The second needs the columns of the first, in any order.
        label: index of the column to predict; ``categories`` and ``drop`` are indices too.
        load_options: options of any source; ``load_table`` describes the rest.
        categories: columns of categories that look like numbers.
        drop: columns to ignore.
        spelling: how cells are written.
        task: whether the label is a class or a real value; None guesses.
        rare: what to do with classes that have too few rows for both splits.

    Raises:
        UserError: as ``load_table`` does.
    """
    first = tables[0]
    tables = [first, *(select_columns(t, first.names, of=first.file) for t in tables[1:])]
    kinds: dict[int, Kind | None] = dict(enumerate(first.kinds))
    kinds |= dict.fromkeys(categories, "category")
    given = known_preparation(load_options.preparation, first.file)
    if given is not None:
        _check_options(given, first, categories, drop, task)
        task = "classification" if given.classes else "regression"
        tables, kinds = _columns_of_training(tables, label, given)
        label, drop = len(kinds), ()
    if task is not None:
        kinds[label] = "number" if task == "regression" else "category"
    target, features = _parsed(tables, kinds, spelling, label=label, drop=drop)
    notes = [note for table in tables for note in table.notes]
    bad = _BadRows(tables, target, features)
    classes: tuple[str, ...] = ()
    targets = torch.from_numpy(target.values.astype(np.float32))
    if task == "classification" or (task is None and _has_classes(target, bad.good(0))):
        target = parse_column(target.name, target.text, "category", Spelling(missing=()))
        least = _enough(load_options.test_fraction) if rare == "drop" and len(tables) == 1 else 1
        classes = tuple(given.classes) if given else _classes(target, bad.good(0), least)
        targets = _class_indices(target, classes)
        notes += bad.exclude_unknown(target, targets.numpy(), rare, trained=given is not None)
    skipped = [bad.raised_or_skipped(k, load_options.skip_bad) for k in range(len(tables))]
    if len(classes) == 1:
        raise UserError(
            f"{first.file} has only one class, {classes[0]!r} in column {target.name!r}. Expected "
            "two or more."
        )
    train, sha256 = bad.good(0), _hash(features, targets, len(first.rows))
    if len(tables) == 2:
        test = bad.good(1)
    elif given is not None and given.sha256 != sha256:
        train, test = train[:0], train
        skipped = [(), *skipped]
        notes.append(
            Note(
                f"{first.file} is not the table that was used for training, so all of its "
                f"{len(test):,} rows are the test split"
            )
        )
    else:
        train, test = _split_rows(train, targets, classes, load_options, rare)
        skipped.append(())
    preparation = given
    if preparation is None:
        notes += column_notes(features, train, {first.names[i] for i in categories})
        notes += label_notes(target, classes, targets[train], targets[test], guessed=task is None)
        numbers, others = fit_columns(features, train)
        preparation = TablePreparation(
            sha256=sha256,
            label=target.name,
            classes=list(classes),
            missing=list(spelling.missing),
            decimal=spelling.decimal,
            thousands=spelling.thousands,
            numbers=numbers,
            categories=others,
        )
    _check_input_bytes(preparation, len(train) + len(test), load_options.max_bytes)
    splits = []
    for rows, messages in zip((train, test), skipped, strict=True):
        inputs, unseen = apply_columns(features, preparation, rows)
        kept, too_far = bad.exclude_infinite(inputs, rows, features, load_options.skip_bad)
        if unseen:
            notes.append(unseen_note(unseen, len(kept)))
        splits.append(
            Split(torch.from_numpy(inputs[kept]), targets[rows[kept]], (*messages, *too_far))
        )
    return DataSet(
        classes,
        train=splits[0],
        test=splits[1],
        notes=tuple(notes),
        preparation=load_options.preparation or preparation.model_dump(),
    )


def known_preparation(preparation: Mapping[str, Any] | None, file: str) -> TablePreparation | None:
    """Return the preparation of the training if there is one.

    Raises:
        UserError: if it is not one of a table.
    """
    if preparation is None:
        return None
    if preparation.get("kind") != "table":
        raise UserError(
            f"{file} is a table, but the preparation of the training data is not that of a table. "
            "Pass data of the same kind as in training."
        )
    try:
        return TablePreparation.model_validate(preparation)
    except pydantic.ValidationError as error:
        raise UserError(
            f"{file}: the preparation of the training data, as stored in a checkpoint, is damaged. "
            "Train the network again."
        ) from error


def _check_options(
    given: TablePreparation,
    table: Table,
    categories: Collection[int],
    drop: Collection[int],
    task: Task | None,
) -> None:
    """Raise if options contradict the training."""
    numbers = given.numbers.columns
    used = {*numbers, *given.categories.columns}
    if dropped := [table.names[i] for i in drop if table.names[i] in used]:
        raise UserError(
            f"drop: expected columns that training did not use, got {listed(dropped)}. Remove them "
            "from drop."
        )
    if wrong := [table.names[i] for i in categories if table.names[i] in numbers]:
        raise UserError(
            f"categories: expected columns that were not numbers in training, got {listed(wrong)}. "
            "Remove them from categories."
        )
    if task is not None and (task == "classification") != bool(given.classes):
        other = "classification" if given.classes else "regression"
        raise UserError(f"task: expected {other}, as in training, got {task}. Remove the option.")


def _columns_of_training(
    tables: Sequence[Table], label: int, given: TablePreparation
) -> tuple[list[Table], dict[int, Kind | None]]:
    """Return tables with the columns of the training and then the label, and their kinds."""
    numbers, others = given.numbers.columns, given.categories.columns
    names = [*numbers, *others]
    kinds: dict[int, Kind | None] = dict.fromkeys(range(len(names)), "category")
    kinds |= dict.fromkeys(range(len(numbers)), "number")
    return [select_columns(t, names, of="the training table", label=label) for t in tables], kinds


def _parsed(
    tables: Sequence[Table],
    kinds: Mapping[int, Kind | None],
    spelling: Spelling,
    *,
    label: int,
    drop: Collection[int],
) -> tuple[Column, list[Column]]:
    """Parse the label and the other columns of all tables; the first one decides their kinds."""
    import pyarrow as pa

    first = tables[0]
    columns = {}
    for i, name in enumerate(first.names):
        if i not in drop:
            text = pa.concat_arrays([table.columns[i] for table in tables])
            columns[i] = parse_column(name, text, kinds[i], spelling, deciding=len(first.rows))
    target = columns.pop(label)
    if not columns:
        raise UserError(
            f"{first.file} has no column except the label {target.name!r}. Columns are separated "
            "by comma, semicolon, tab or space."
        )
    return target, list(columns.values())


class _BadRows:
    """The rows that cannot be used, with an error message for each."""

    def __init__(self, tables: Sequence[Table], target: Column, features: Sequence[Column]) -> None:
        self._files = [table.file for table in tables]
        self._messages = [dict(table.bad) for table in tables]
        self._table = np.repeat(np.arange(len(tables)), [len(table.rows) for table in tables])
        self._row = np.concatenate([table.rows for table in tables])
        self._good = np.concatenate([~np.isin(t.rows, list(t.bad)) for t in tables])
        for column in [target, *features]:
            for i in np.flatnonzero(column.bad).tolist():
                cell = column.text[i].as_py()
                expected = "a number" if number(cell) is None else "a number up to 3.4e38"
                marks = ", or pass decimal= or thousands=" if re.search(r"\d[,.' ]\d", cell) else ""
                self._add(
                    i,
                    f"expected {expected} in column {column.name!r}, got {cell[:40]!r}. Correct "
                    f"it, or list the column in categories{marks}.",
                )
        for i in np.flatnonzero(target.missing).tolist():
            self._add(i, f"the label {target.name!r} is missing. Add it, or delete the row.")

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


def _has_classes(target: Column, known: np.ndarray) -> bool:
    """Guess whether a label is a class: text, or few different integers."""
    if target.kind == "category":
        return True
    values = target.values[known]
    different = len(target.text.take(known).unique())
    return bool((values == np.floor(values)).all()) and different <= min(20, len(values) // 2)


def _classes(target: Column, known: np.ndarray, least: int) -> tuple[str, ...]:
    """Return the labels with enough rows, sorted as numbers if all are."""
    counts = np.bincount(target.values[known].astype(np.int64), minlength=len(target.levels))
    classes = [name for name, count in zip(target.levels, counts, strict=True) if count >= least]
    numbers = {name: number(name) for name in classes}
    if None not in numbers.values():
        classes.sort(key=lambda name: (numbers[name], name))
    return tuple(classes)


def _class_indices(target: Column, classes: Sequence[str]) -> Tensor:
    """Return the class of each row, -1 if it is none of the classes."""
    place = {name: k for k, name in enumerate(classes)}
    indices = np.array([place.get(level, -1) for level in (*target.levels, "")])
    return torch.from_numpy(indices[target.values.astype(np.int64)])


def _enough(fraction: float) -> int:
    """Return the fewest rows of a class that surely have one in each split."""
    return math.ceil(1 / min(fraction, 1 - fraction))


def _split_rows(
    rows: np.ndarray,
    targets: Tensor,
    classes: Sequence[str],
    load_options: LoadOptions,
    rare: Rare,
) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of one table."""
    fraction, seed = load_options.test_fraction, load_options.seed
    targets = targets[rows]
    few = np.zeros(len(rows), dtype=bool)
    if classes:
        few = (targets.bincount() < _enough(fraction))[targets].numpy()
    if rare == "train" and few.any():
        rest = np.flatnonzero(~few)
        present, packed = np.unique(targets.numpy()[rest], return_inverse=True)
        names = [classes[k] for k in present]
        train, test = train_test_rows(
            torch.from_numpy(packed), fraction=fraction, seed=seed, classes=names
        )
        return rows[np.concatenate([rest[train], np.flatnonzero(few)])], rows[rest[test]]
    try:
        train, test = train_test_rows(targets, fraction=fraction, seed=seed, classes=classes)
    except UserError as error:
        if rare == "drop" or not few.any():
            raise
        raise UserError(
            f"{error} Or pass rare=drop to skip the rows of such classes, or rare=train to put "
            "them into the training split."
        ) from error
    return rows[train], rows[test]


def _hash(features: Sequence[Column], targets: Tensor, rows: int) -> str:
    """Return a hash of a table's content, whatever its spelling and the order of its columns."""
    digest = hashlib.sha256()
    for column in sorted(features, key=lambda column: column.kind, reverse=True):  # numbers first
        digest.update(repr((column.name, column.levels)).encode())
        digest.update(column.values[:rows].tobytes())
    digest.update(targets[:rows].numpy().tobytes())
    return digest.hexdigest()


def _check_input_bytes(preparation: TablePreparation, rows: int, max_bytes: int) -> None:
    widths = preparation.widths
    size = 4 * rows * (len(preparation.numbers.columns) + sum(widths))
    if size <= max_bytes:
        return
    hint = "Drop some columns"
    if widths and max(widths) > 1:
        name = preparation.categories.columns[int(np.argmax(widths))]
        hint = f"Column {name!r} alone has {max(widths):,} categories: drop it if it is an id"
    raise UserError(
        f"the inputs would take {size:,} bytes, over the limit of {max_bytes:,}. {hint}, or raise "
        "max_bytes (--max-bytes)."
    )
