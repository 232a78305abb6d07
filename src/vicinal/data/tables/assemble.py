"""Turn tables into a data set: bad rows, targets, and the training and test splits."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
import pydantic
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, Split
from vicinal.data.tables.bad_rows import BadRows, Rare
from vicinal.data.tables.columns import (
    Column,
    Spelling,
    TablePreparation,
    apply_columns,
    as_known,
    fit_columns,
    has_other_rows,
    hash_of_groups,
    parse_column,
)
from vicinal.data.tables.notes import (
    FEW,
    column_notes,
    label_hint,
    label_notes,
    unseen_notes,
)
from vicinal.data.tables.table import Kind, Table, listed, number, select_columns
from vicinal.data.train_test_split import fewest_examples, kept_rows, train_test_rows
from vicinal.errors import UserError

Task = Literal["classification", "regression"]
Known = TypeVar("Known", bound=pydantic.BaseModel)


def assemble(
    tables: Sequence[Table],
    *,
    label: int,
    load_options: LoadOptions,
    group: int | None = None,
    categories: Collection[int] = (),
    drop: Collection[int] = (),
    spelling: Spelling = Spelling(),  # noqa: B008 (immutable)
    task: Task | None = None,
    rare: Rare = "error",
) -> DataSet:
    """Make a data set of one table, which is split, or of a training and a test table.

    Args:
        tables: one or two. The second needs the columns of the first, in any order.
        label: index of the column to predict; ``group``, ``categories`` and ``drop`` are indices
            too.
        load_options: options of any source; ``load_table`` describes the rest.
        group: column whose rows with the same value are in the same split. It is not an input.
        categories: columns of categories that look like numbers.
        drop: columns to ignore.
        spelling: how cells are written.
        task: whether the label is a class or a real value; None guesses.
        rare: what to do with classes that have too few rows for both splits.

    Raises:
        UserError: as ``load_table`` does.
    """
    first = tables[0]
    drop = {*drop} if group is None else {*drop, group}
    preparation = given = known_preparation(load_options.preparation, first.file, TablePreparation)
    if given is not None:
        task = _task_of_training(given, first, categories, drop, task)
    kinds = _kinds(first, label, task, given)
    tables = [
        first,
        *(
            _spelled_like(first, t, spelling, kinds, {label, group, *categories})
            for t in tables[1:]
        ),
    ]
    kinds |= dict.fromkeys({*categories} - ({label} if task else set()), "category")
    together = None if group is None else _parsed_column(tables, group, "category", spelling)
    if given is not None:
        tables, kinds = _columns_of_training(tables, label, given, kinds[label])
        label, drop = len(kinds) - 1, ()
    target, features = _parsed(tables, kinds, spelling, label=label, drop=drop)
    notes = [note for table in tables for note in table.notes]
    bad = BadRows(tables, target, features, together, spelling)
    groups = None if together is None else torch.from_numpy(together.values.astype(np.int64))
    classes: tuple[str, ...] = ()
    targets = torch.from_numpy(target.values.astype(np.float32))
    if task == "classification" or (task is None and _has_classes(target, bad.good(0))):
        target = parse_column(target.name, target.text, "category", Spelling(missing=()))
        split_by = (load_options.test_fraction, load_options.fold)
        least = fewest_examples(*split_by) if rare == "drop" and len(tables) == 1 else 1
        classes = (
            tuple(given.classes) if given else classes_of(target, bad.good(0), least, first, task)
        )
        targets = class_indices(target, classes)
        notes += bad.exclude_unknown(target, targets.numpy(), rare, trained=given is not None)
    skipped = [bad.raised_or_skipped(k, load_options.skip_bad) for k in range(len(tables))]
    check_several(classes, target, first)
    sha256 = _hash(features, targets, len(first.rows))
    usable = [bad.good(k) for k in range(len(tables))]
    of_groups = hash_of_groups(None if groups is None else groups[usable[0]], len(usable[0]))
    if len(tables) == 1 and has_other_rows(given, sha256, of_groups, first.file):
        notes.append(other_rows_note(first, len(usable[0])))
        usable = [usable[0][:0], usable[0]]
        skipped = [(), *skipped]
    rows = _split_rows(
        usable, targets, groups, classes=classes, load_options=load_options, rare=rare, task=task
    )
    if preparation is None:
        train, both = rows["train"], (targets[rows[name]] for name in ("train", "test"))
        declared = {first.names[i] for i in categories}
        notes += column_notes(features, train, declared, _typed(first), spelling)
        notes += label_notes(target, classes, *both, guessed=task is None)
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
            group=None if together is None else together.name,
            header=first.header,
            own_test=len(tables) == 2,
            group_sha256=of_groups,
        )
    _check_input_bytes(preparation, sum(map(len, rows.values())), load_options.max_bytes)
    messages = dict(zip(("train", "test"), skipped, strict=False))
    splits: dict[str, Any] = {}
    for name, chosen in rows.items():
        inputs, unseen = apply_columns(features, preparation, chosen)
        kept, too_far = bad.exclude_infinite(inputs, chosen, features, load_options.skip_bad)
        splits[name] = Split(
            torch.from_numpy(inputs[kept]),
            targets[chosen[kept]],
            (*messages.get(name, ()), *too_far),
            None if groups is None else groups[chosen[kept]],
        )
        notes += unseen_notes(unseen, len(kept))
    return DataSet(
        classes,
        **splits,
        notes=tuple(notes),
        preparation=load_options.preparation or preparation.model_dump(),
        fixed_test=len(tables) == 2,
    )


def known_preparation(
    preparation: Mapping[str, Any] | None, file: str, form: type[Known]
) -> Known | None:
    """Return the preparation that was used for training, if there is one.

    Raises:
        UserError: if it is not of this form.
    """
    if preparation is None:
        return None
    kind = form.model_fields["kind"].default
    if preparation.get("kind") != kind:
        raise UserError(
            f"{file} is a {kind}, but the network was trained on data of another form. Pass data "
            "of the same form as in training."
        )
    try:
        return form.model_validate(preparation)
    except pydantic.ValidationError as error:
        raise UserError(
            f"{file}: the settings in the checkpoint that prepare data as in training are damaged. "
            "Train the network again."
        ) from error


def _kinds(
    first: Table, label: int, task: Task | None, given: TablePreparation | None
) -> dict[int, Kind | None]:
    """Return the kinds of the columns of the first table; None where the cells decide."""
    kinds: dict[int, Kind | None] = dict(enumerate(first.kinds))
    trained = set() if given is None else set(given.numbers.columns)
    kinds |= {k: "number" for k, name in enumerate(first.names) if name in trained}
    if task is not None:
        kinds[label] = "number" if task == "regression" else "category"
    return kinds


def _task_of_training(
    given: TablePreparation,
    table: Table,
    categories: Collection[int],
    drop: Collection[int],
    task: Task | None,
) -> Task:
    """Return the task of the training; raise if options contradict those that were used for it."""
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
    trained: Task = "classification" if given.classes else "regression"
    if task not in (None, trained):
        raise UserError(f"task: expected {trained}, as in training, got {task}. Remove the option.")
    return trained


def _spelled_like(
    first: Table,
    table: Table,
    spelling: Spelling,
    kinds: Mapping[int, Kind | None],
    coded: Collection[int | None],
) -> Table:
    """Return a test table with the columns of the first one, and with its spelling of categories.

    Booleans and numbers of files of another type may be written otherwise. ``kinds`` has the kinds
    of the columns of the first table, and ``coded`` the indices of those whose numbers may be
    categories.
    """
    table, columns = select_columns(table, first.names, of=first.file), []
    plain = spelling.decimal == "." and not spelling.thousands
    for k, (column, kind, own) in enumerate(
        zip(table.columns, table.kinds, first.columns, strict=True)
    ):
        as_first = column
        if kind != first.kinds[k]:
            as_number = kinds[k] == "number"
            text = parse_column("", own, "number" if as_number else first.kinds[k], spelling)
            if text.kind == "category" or (k in coded and plain):
                known = {*own.unique().to_pylist()} - {None, "", *spelling.missing}
                as_first = as_known(column, kind, [*known])
        columns.append(as_first)
    return replace(table, columns=columns)


def _columns_of_training(
    tables: Sequence[Table], label: int, given: TablePreparation, kind: Kind | None
) -> tuple[list[Table], dict[int, Kind | None]]:
    """Return tables with the columns of the training table and then the label, and their kinds.

    ``kind`` is that of the label.
    """
    numbers, others = given.numbers.columns, given.categories.columns
    names = [*numbers, *others]
    kinds: dict[int, Kind | None] = dict.fromkeys(range(len(names)), "category")
    kinds |= dict.fromkeys(range(len(numbers)), "number")
    kinds[len(names)] = kind
    chosen = [select_columns(t, names, of="the training table", label=label) for t in tables]
    values: list[Sequence[str | None]] = [*given.categories.values, given.classes]
    known = [
        [
            *table.columns[: len(numbers)],
            *map(as_known, table.columns[len(numbers) :], table.kinds[len(numbers) :], values),
        ]
        for table in chosen
    ]
    return [replace(t, columns=columns) for t, columns in zip(chosen, known, strict=True)], kinds


def _parsed(
    tables: Sequence[Table],
    kinds: Mapping[int, Kind | None],
    spelling: Spelling,
    *,
    label: int,
    drop: Collection[int],
) -> tuple[Column, list[Column]]:
    """Parse the label and the other columns of all tables; the first one decides their kinds."""
    first = tables[0]
    columns = {
        i: _parsed_column(tables, i, kinds[i], spelling)
        for i in range(len(first.names))
        if i not in drop
    }
    target = columns.pop(label)
    if not columns:
        raise UserError(
            f"{first.file} has no column except the label {target.name!r}. Columns are separated "
            "by comma, semicolon, tab or space."
        )
    return target, list(columns.values())


def _parsed_column(
    tables: Sequence[Table], i: int, kind: Kind | None, spelling: Spelling
) -> Column:
    """Parse a column of all tables; the first one decides its kind."""
    import pyarrow as pa

    text = pa.concat_arrays([table.columns[i] for table in tables])
    return parse_column(tables[0].names[i], text, kind, spelling, deciding=len(tables[0].rows))


def _has_classes(target: Column, known: np.ndarray) -> bool:
    """Guess whether a label is a class: text, or few different integers."""
    if target.kind == "category":
        return True
    values = target.values[known]
    different = len(target.text.take(known).unique())
    return bool((values == np.floor(values)).all()) and different <= min(20, len(values) // 2)


def classes_of(
    target: Column, known: np.ndarray, least: int, table: Table, task: Task | None = None
) -> tuple[str, ...]:
    """Return the labels with enough rows, sorted as numbers if all are.

    Raises:
        UserError: if each row has a label of its own, so that nothing can be learned.
    """
    if len(known) >= FEW and len(np.unique(target.values[known])) == len(known):
        raise UserError(
            f"{table.file}: expected classes that have several rows each, got {len(known):,} "
            f"different labels in {len(known):,} rows of column {target.name!r}. Choose another "
            f"label among {listed(table.names)}, or pass task=regression if these are numbers. "
            f"{label_hint(target.levels, task)}".rstrip()
        )
    counts = np.bincount(target.values[known].astype(np.int64), minlength=len(target.levels))
    classes = [name for name, count in zip(target.levels, counts, strict=True) if count >= least]
    numbers = {name: number(name) for name in classes}
    if None not in numbers.values():
        classes.sort(key=lambda name: (numbers[name], name))
    return tuple(classes)


def other_rows_note(table: Table, rows: int) -> Note:
    """Report that a table has not the rows of the training, so that all are tested."""
    text = f"{table.file} has other rows than the table that was used for training, or the same"
    return Note(f"{text} in another order, so all of its {rows:,} rows are the test split")


def check_several(classes: Sequence[str], target: Column, table: Table) -> None:
    """Raise if there is only one class."""
    if len(classes) == 1:
        raise UserError(
            f"{table.file}: expected two or more classes in column {target.name!r}, got "
            f"{classes[0]!r} only. Choose another column with label=COLUMN."
        )


def class_indices(target: Column, classes: Sequence[str]) -> Tensor:
    """Return the class of each row, -1 if it is none of the classes."""
    place = {name: k for k, name in enumerate(classes)}
    indices = np.array([place.get(level, -1) for level in (*target.levels, "")])
    return torch.from_numpy(indices[target.values.astype(np.int64)])


def _split_rows(
    usable: Sequence[np.ndarray],
    targets: Tensor,
    groups: Tensor | None,
    *,
    classes: Sequence[str],
    load_options: LoadOptions,
    rare: Rare,
    task: Task | None,
) -> dict[str, np.ndarray]:
    """Return the rows of each split, of one table or of two."""

    def divided(rows: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        own = None if groups is None else groups[rows]
        options |= {"classes": classes, "groups": own, "seed": load_options.seed}
        first, second = train_test_rows(targets[rows], **options)
        return rows[first], rows[second]

    train, test = usable[0], usable[-1]
    if len(usable) == 1:
        fraction, fold = load_options.test_fraction, load_options.fold
        try:
            train, test = divided(train, fraction=fraction, fold=fold, keep_small=rare == "train")
        except UserError as error:
            few = classes and int(targets[train].bincount().min()) < fewest_examples(fraction, fold)
            if rare != "error" or not few or groups is not None:
                raise
            hint = label_hint(classes, task)
            if task is None and all(number(name) is not None for name in classes):
                hint = "If the labels are quantities, add the option task=regression."
            raise UserError(
                f"{error} Or pass rare=drop to skip the rows of such classes, or rare=train to put "
                f"them into the training split (a study then gives no verdict). {hint}".rstrip()
            ) from error
    if load_options.train_fraction < 1 and len(train):
        own = None if groups is None else groups[train]
        share, seed = load_options.train_fraction, load_options.seed
        train = train[kept_rows(targets[train], share, seed, own, classes)]
    if not (fraction := load_options.validation_fraction) or not len(train):
        return {"train": train, "test": test}
    train, validation = divided(train, fraction=fraction, keep_small=True, held_out="validation")
    return {"train": train, "validation": validation, "test": test}


def _typed(table: Table) -> set[str]:
    return {name for name, kind in zip(table.names, table.kinds, strict=True) if kind is not None}


def _hash(features: Sequence[Column], targets: Tensor, rows: int) -> str:
    """Return a hash of a table's content, whatever its spelling and the order of its columns."""
    digest = hashlib.sha256()
    for column in sorted(features, key=lambda column: column.kind, reverse=True):  # numbers first
        values, levels = column.values[:rows], column.levels
        if column.kind == "category":  # a test file may have others
            present, values = np.unique(values, return_inverse=True)
            levels = tuple((*column.levels, "")[int(k)] for k in present)
        digest.update(repr((column.name, levels)).encode())
        digest.update(values.astype(np.float64).tobytes())
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
