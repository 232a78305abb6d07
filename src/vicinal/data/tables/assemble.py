"""Turn tables into a data set: bad rows, targets, and the training and test splits."""

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, SkippedExamples, Split
from vicinal.data.tables.columns import (
    Column,
    Spelling,
    aligned,
    apply_columns,
    fit_columns,
    input_bytes,
    listed,
    parse_column,
)
from vicinal.data.tables.delimited_text import Kind, Table, number
from vicinal.data.tables.notes import column_notes, label_notes, unseen_note
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError

Task = Literal["classification", "regression"]
Rare = Literal["refuse", "train", "drop"]

USUAL_SPELLING = Spelling()


def assemble(
    tables: Sequence[Table],
    *,
    label: int,
    wanted: LoadOptions,
    categories: Collection[int] = (),
    drop: Collection[int] = (),
    spelling: Spelling = USUAL_SPELLING,
    task: Task | None = None,
    rare: Rare = "refuse",
) -> DataSet:
    """Make a data set of one table, which is split, or of a training and a test table.

    Args:
        tables: one or two. The second needs the columns of the first, in any order.
        label: index of the column to predict; ``categories`` and ``drop`` are indices too.
        wanted: options of any source; ``load_table`` describes the rest.
        categories: columns of categories that look like numbers.
        drop: columns to ignore.
        spelling: how cells are written.
        task: whether the label is a class or a real value; None guesses.
        rare: what to do with classes that have too few rows for both splits.

    Raises:
        UserError: as ``load_table`` does.
    """
    first = tables[0]
    if label in drop:
        raise UserError(f"the label {first.names[label]!r} is in drop too. Remove it there.")
    if label in categories and task == "regression":
        raise UserError(f"the label {first.names[label]!r} is in categories. Remove it there.")
    notes = list(first.notes)
    for second in tables[1:]:
        same, left_out = aligned(second, first.names, of=first.file)
        tables = [first, same]
        notes += [*second.notes, *left_out]
    kinds: dict[int, Kind] = dict.fromkeys(categories, "category")
    given = wanted.preparation
    if given is not None:
        check_preparation(given, first.file)
        _check_options(given, first, categories, drop, task)
        task = "classification" if given["classes"] else "regression"
        tables, kinds, left_out = _as_in_training(tables, label, given)
        label, drop = len(kinds), ()
        notes += left_out
    if task is not None:
        kinds[label] = "number" if task == "regression" else "category"
    columns = {
        i: _parse_both(tables, i, kind=kinds.get(i, tables[0].kinds[i]), spelling=spelling)
        for i in range(len(tables[0].names))
        if i not in drop
    }
    target = columns.pop(label)
    if not columns:
        raise UserError(
            f"{first.file} has no column except the label {target.name!r}. Columns are separated "
            "by comma, semicolon, tab or space."
        )
    named = frozenset(first.names[i] for i in categories)
    request = _Request(tables, list(columns.values()), target, wanted, rare, task, named)
    return _make_data_set(request, notes, spelling)


class _Request(NamedTuple):
    """Parsed tables, and how to make a data set of them."""

    tables: Sequence[Table]
    features: list[Column]
    target: Column
    wanted: LoadOptions
    rare: Rare
    task: Task | None
    categories: frozenset[str]


def _as_in_training(
    tables: Sequence[Table], label: int, given: Mapping[str, Any]
) -> tuple[list[Table], dict[int, Kind], list[Note]]:
    """Return tables with the columns of the training and then the label, and their kinds."""
    numbers, others = (given[key]["columns"] for key in ("numbers", "categories"))
    chosen = [aligned(t, [*numbers, *others], of="the training", label=label) for t in tables]
    kinds: dict[int, Kind] = dict.fromkeys(range(len(numbers)), "number")
    kinds |= dict.fromkeys(range(len(numbers), len(numbers) + len(others)), "category")
    notes = [note for _, left_out in chosen for note in left_out]
    return [table for table, _ in chosen], kinds, notes


def _make_data_set(request: _Request, notes: list[Note], spelling: Spelling) -> DataSet:
    tables, features, target = request.tables, request.features, request.target
    wanted, given, first = request.wanted, request.wanted.preparation, request.tables[0]
    bad = _bad_rows(tables, target, features)
    good = [~np.isin(t.rows, list(of_one)) for t, of_one in zip(tables, bad, strict=True)]
    classes: tuple[str, ...] = ()
    targets = torch.from_numpy(target.values.astype(np.float32))
    if _is_classification(target, np.flatnonzero(good[0]), request.task):
        spelled = Spelling(missing=())
        target = parse_column(target.name, target.text, "category", spelling=spelled, deciding=0)
        classes = _classes(target, good[0], request)
        targets = _class_indices(target, classes)
        notes += _remove_unknown_classes(request, targets, good, bad)
    skipped = [_raised_or_skipped(of_one, wanted) for of_one in bad]
    for table, kept in zip(tables, good, strict=True):
        if not kept.any():
            raise UserError(f"{table.file} has no usable row. Check its cells.")
    if len(classes) == 1:
        raise UserError(
            f"{first.file} has only one class, {classes[0]!r} in column {target.name!r}. "
            "Expected two or more."
        )
    known, sha256 = np.flatnonzero(good[0]), _hash(features, targets, len(first.rows))
    if len(tables) == 2:
        train, test = known, len(first.rows) + np.flatnonzero(good[1])
    elif given is not None and given["sha256"] != sha256:
        train, test, skipped = known[:0], known, [(), *skipped]
        sentence = (
            f"{first.file} does not hold the rows of the training, so all of its {len(test):,} "
            "rows are the test split"
        )
        notes.append(Note(sentence))
    else:
        split_rows = _split_rows(targets[known], classes, wanted, request.rare)
        train, test = (known[rows] for rows in split_rows)
        skipped.append(())
    preparation = given
    if preparation is None:
        notes += column_notes(features, train, chosen=request.categories)
        notes += label_notes(
            target,
            classes,
            targets[train].numpy(),
            targets[test].numpy(),
            guessed=request.task is None,
        )
        preparation = {
            "kind": "table",
            "sha256": sha256,
            "label": target.name,
            "classes": list(classes),
            **spelling._asdict(),
            "missing": list(spelling.missing),
            **fit_columns(features, train),
        }
    _check_size(preparation, len(train) + len(test), wanted)
    splits = []
    for used, messages in zip((train, test), skipped, strict=True):
        rows = used
        inputs, far, unseen = apply_columns(features, preparation, rows)
        sentences = _raised_or_skipped(_too_far(tables, features, rows, far), wanted)
        if sentences:
            near = ~far.any(axis=1)
            inputs, rows = inputs[near], rows[near]
        if unseen:
            notes.append(unseen_note(unseen, len(inputs)))
        split_targets = targets[torch.from_numpy(rows)]
        splits.append(Split(torch.from_numpy(inputs), split_targets, (*messages, *sentences)))
    return DataSet(
        classes, train=splits[0], test=splits[1], notes=tuple(notes), preparation=preparation
    )


def _hash(features: Sequence[Column], targets: Tensor, rows: int) -> str:
    """Return a hash of a table's content, whatever its spelling and the order of its columns."""
    digest = hashlib.sha256()
    for kind in ("number", "category"):
        for column in features:
            if column.kind == kind:
                digest.update(repr((column.name, column.levels)).encode())
                digest.update(column.values[:rows].tobytes())
    digest.update(targets[:rows].numpy().tobytes())
    return digest.hexdigest()


def check_preparation(preparation: Mapping[str, Any], file: str) -> None:
    """Raise an error where a preparation is not one of a table."""
    if preparation.get("kind") != "table":
        raise UserError(
            f"{file} is a table, and the preparation to apply is not that of a table. Pass data "
            "of the same kind as in training."
        )
    try:
        numbers, others = preparation["numbers"], preparation["categories"]
        texts = [preparation["label"], preparation["sha256"], *preparation["classes"]]
        texts += [*preparation["missing"], *numbers["columns"], *others["columns"]]
        values = [value for of_one in others["values"] for value in of_one]
        texts += [value for value in values if value is not None]
        valid = all(isinstance(text, str) for text in texts)
        for key in ("mean", "scale"):
            of_each = np.array(numbers[key], dtype=np.float64)
            valid &= of_each.shape == (len(numbers["columns"]),) and bool(
                np.isfinite(of_each).all()
            )
        valid &= len(others["columns"]) == len(others["values"])
    except (KeyError, TypeError, ValueError, OverflowError):
        valid = False
    if not valid:
        raise UserError(f"{file}: the preparation to apply is damaged. Train the network again.")


def _check_options(
    given: Mapping[str, Any],
    table: Table,
    categories: Collection[int],
    drop: Collection[int],
    task: Task | None,
) -> None:
    """Raise if options contradict the training."""
    numbers = given["numbers"]["columns"]
    used = {*numbers, *given["categories"]["columns"]}
    if dropped := [table.names[i] for i in drop if table.names[i] in used]:
        raise UserError(f"drop has {listed(dropped)}, which the training used. Remove it there.")
    if wrong := [table.names[i] for i in categories if table.names[i] in numbers]:
        raise UserError(
            f"categories has {listed(wrong)}, which are numbers in the training. Remove it there."
        )
    if task is not None and (task == "classification") != bool(given["classes"]):
        other = "classification" if given["classes"] else "regression"
        raise UserError(f"task={task}: the training was {other}. Remove the option.")


def _check_size(preparation: Mapping[str, Any], rows: int, wanted: LoadOptions) -> None:
    size = input_bytes(preparation, rows)
    if size <= wanted.max_bytes:
        return
    hint = "drop some columns"
    widths = [len(values) for values in preparation["categories"]["values"]]
    if widths and max(widths) > 1:
        widest = int(np.argmax(widths))
        name = preparation["categories"]["columns"][widest]
        hint = f"column {name!r} alone has {widths[widest]:,} categories: drop it if it is an id"
    raise UserError(
        f"the inputs would take {size:,} bytes, over the limit of {wanted.max_bytes:,}; {hint}, "
        "or raise max_bytes (--max-bytes)"
    )


def _too_far(
    tables: Sequence[Table], features: Sequence[Column], rows: np.ndarray, far: np.ndarray
) -> dict[int, str]:
    numbers = [column for column in features if column.kind == "number"]
    messages = {}
    for i, k in np.argwhere(far).tolist():
        place, table = int(rows[i]), tables[0]
        if place >= len(table.rows):
            place, table = place - len(table.rows), tables[1]
        row = int(table.rows[place])
        messages[row] = (
            f"{table.file} row {row}: column {numbers[k].name!r} has a value too far from those of "
            "the training for float32. Correct it, or drop the column."
        )
    return messages


def _parse_both(
    tables: Sequence[Table], i: int, *, kind: Kind | None, spelling: Spelling
) -> Column:
    import pyarrow as pa

    text = tables[0].columns[i]
    if len(tables) > 1:
        text = pa.concat_arrays([table.columns[i] for table in tables])
    name = tables[0].names[i]
    return parse_column(name, text, kind, spelling=spelling, deciding=len(tables[0].rows))


def _bad_rows(
    tables: Sequence[Table], target: Column, columns: Sequence[Column]
) -> list[dict[int, str]]:
    """Return, for each table, a sentence for each row that cannot be used."""
    bad = [dict(table.bad) for table in tables]
    start = len(tables[0].rows)

    def place(i: int) -> tuple[int, int]:
        return (0, int(tables[0].rows[i])) if i < start else (1, int(tables[1].rows[i - start]))

    for column in [target, *columns]:
        for i in np.flatnonzero(column.bad):
            (k, row), cell = place(int(i)), column.text[int(i)].as_py()
            expected = "a number" if number(cell) is None else "a number up to 3.4e38"
            options = ", or pass decimal= or thousands=" if re.search(r"\d[,.' ]\d", cell) else ""
            bad[k].setdefault(
                row,
                f"{tables[k].file} row {row}: expected {expected} in column {column.name!r}, got "
                f"{cell[:40]!r}. Correct it, or list the column in categories{options}.",
            )
    for i in np.flatnonzero(target.missing):
        k, row = place(int(i))
        bad[k].setdefault(
            row,
            f"{tables[k].file} row {row}: the label {target.name!r} is missing. "
            "Add it, or delete the row.",
        )
    return bad


def _is_classification(target: Column, known: np.ndarray, task: Task | None) -> bool:
    if task is not None:
        return task == "classification"
    if target.kind == "category":
        return True
    values = target.values[known]
    if not (values == np.floor(values)).all():
        return False
    different = len(set(target.text.take(known).to_pylist()))
    return different <= min(20, len(values) // 2)


def _classes(target: Column, good: np.ndarray, request: _Request) -> tuple[str, ...]:
    """Return the classes of the training, or the labels of the good rows as they are spelled."""
    if request.wanted.preparation is not None:
        return tuple(request.wanted.preparation["classes"])
    known = target.values[: len(good)][good].astype(np.int64)
    counts = np.bincount(known, minlength=len(target.levels))
    least = 1
    if request.rare == "drop" and len(request.tables) == 1:
        least = _enough(request.wanted.test_fraction)
    classes = [name for name, count in zip(target.levels, counts, strict=True) if count >= least]
    try:
        if all(number(name) is not None for name in classes):
            classes.sort(key=lambda name: (Decimal(name), name))
    except ArithmeticError:  # an exponent that no Decimal has
        pass
    return tuple(classes)


def _class_indices(target: Column, classes: Sequence[str]) -> Tensor:
    """Return of every row its class, -1 for any other."""
    place: dict[str | None, int] = {name: k for k, name in enumerate(classes)}
    indices = np.array([place.get(level, -1) for level in (*target.levels, None)])
    return torch.from_numpy(indices[target.values.astype(np.int64)].astype(np.int64))


def _enough(fraction: float) -> int:
    # Of fewer, a share might be no example at all.
    return math.ceil(1 / min(fraction, 1 - fraction))


def _remove_unknown_classes(
    request: _Request, targets: Tensor, good: list[np.ndarray], bad: list[dict[int, str]]
) -> list[Note]:
    """Take out rows of other classes: as bad rows, or with a note where these are dropped."""
    start, notes, label = 0, [], request.target
    trained = request.wanted.preparation is not None
    where = "the training" if trained else request.tables[0].file
    for k, table in enumerate(request.tables):
        unknown = np.flatnonzero(good[k] & (targets[start:][: len(table.rows)].numpy() < 0))
        names = label.text.take(unknown + start).to_pylist()
        if request.rare == "drop" and len(names) and (k == 0 or trained):
            different = listed(sorted(set(names)))
            notes.append(
                Note(f"{table.file}: rare=drop skipped {len(names):,} rows of class {different}")
            )
        else:
            for row, name in zip(table.rows[unknown].tolist(), names, strict=True):
                bad[k][row] = (
                    f"{table.file} row {row}: class {name[:40]!r} of column {label.name!r} is "
                    f"not in {where}. Add examples of it there."
                )
        good[k][unknown] = False
        start += len(table.rows)
    return notes


def _raised_or_skipped(bad: dict[int, str], wanted: LoadOptions) -> tuple[str, ...]:
    skips = SkippedExamples(wanted.skip_bad)
    for row in sorted(bad):
        skips(UserError(bad[row]))
    return tuple(skips.sentences)


def _split_rows(
    targets: Tensor, classes: Sequence[str], wanted: LoadOptions, rare: Rare
) -> tuple[np.ndarray, np.ndarray]:
    fraction, seed = wanted.test_fraction, wanted.seed
    if rare != "train":
        try:
            return train_test_rows(targets, fraction=fraction, seed=seed, classes=classes)
        except UserError as error:
            counts = targets.bincount() if classes else torch.zeros(0)
            if rare == "drop" or not (counts < _enough(fraction)).any():
                raise
            raise UserError(
                f"{error}; rare=drop leaves the rows of such classes out, and rare=train puts "
                "them into the training split"
            ) from error
    few = (targets.bincount() < _enough(fraction))[targets].numpy()
    rest = np.flatnonzero(~few)
    present, packed = np.unique(targets.numpy()[rest], return_inverse=True)
    names = [classes[k] for k in present]
    train, test = train_test_rows(
        torch.from_numpy(packed), fraction=fraction, seed=seed, classes=names
    )
    return np.concatenate([rest[train], np.flatnonzero(few)]), rest[test]
