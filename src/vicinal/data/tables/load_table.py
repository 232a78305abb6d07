"""Load a data set from a table: normalized numbers, one-hot categories, and a label."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from vicinal.data.dataset import DataSet, LoadOptions, Note
from vicinal.data.source_spec import existing, separated_words
from vicinal.data.tables.assemble import Task, assemble, known_preparation
from vicinal.data.tables.bad_rows import Rare
from vicinal.data.tables.columns import Spelling, TablePreparation
from vicinal.data.tables.read_table import TEXT_FORMATS, read_table
from vicinal.data.tables.table import Table
from vicinal.errors import UserError, unknown
from vicinal.options import check_options, choice

OPTIONS = (
    *("label", "test", "header", "missing", "decimal", "thousands"),
    *("categories", "drop", "group", "task", "rare"),
)


def load_table(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    r"""Load a table: the data source ``table:FILE?label=COLUMN``.

    Columns are named by the header, or by their number from 0; negative numbers count from the end.
    A column holds numbers if more than half of its cells that are not missing are numbers, and
    categories otherwise; Parquet and ARFF declare it. Inputs are first the numbers and then the
    categories, each in the order of the file:

    - The mean of the training split is subtracted from numbers, and they are divided by its
      standard deviation (dividing by ``n``), both over the cells that are not missing. A missing
      number becomes the training mean, so 0; no column marks it. A column that is constant in the
      training split is 0 in both splits.
    - Categories are one-hot encoded over those of the training split; "missing" is one of them. A
      category that only the test split has is encoded as zeros.

    Args:
        where: the file: ``.csv``, ``.tsv``, ``.txt``, ``.data``, ``.arff`` or ``.parquet``. A
            relative path is looked up under ``load_options.root`` first.
        options: texts, of which only the first is required:

            - ``label``: the column to predict.
            - ``test``: a second file with the same columns in any order, the test split. Without
              it, a share ``load_options.test_fraction`` of each class is the test split.
            - ``header``: ``yes`` or ``no``, whether the first row of a text file holds names. By
              default it does, with a warning if it looks like data.
            - ``missing``: the markers of a missing value, separated by commas; by default
              those of ``Spelling``. Empty cells are always missing.
            - ``decimal``: the decimal mark, ``.`` by default.
            - ``thousands``: the separator of groups of three digits; none by default.
            - ``categories``: columns, separated by commas, that hold categories although they look
              like numbers.
            - ``drop``: columns to ignore, separated by commas.
            - ``group``: a column such as a patient. Rows with the same value in it are in the same
              split. It is not an input.
            - ``task``: ``classification`` or ``regression``. By default classification if the
              label is text, or integers with at most 20 different values, each occurring twice or
              more on average.
            - ``rare``: ``drop`` skips the rows of classes with too few rows for both splits,
              ``train`` puts them into the training split. By default they raise an error.

            Use percent-encoding for characters that have a meaning here: ``%26`` for ``&``, ``%2C``
            for a comma in the name of a column, ``%3D``, ``%3F``, ``%25``.
        load_options: with ``skip_bad``, a row is skipped and reported in ``Split.skipped`` if it
            has too few or too many cells, text or an infinite number in a column of numbers, no
            label, or, in a test file, a class that the training file does not have. The rows
            skipped in a file that is split are reported in the training split. With
            ``preparation``, columns are found by name and nothing is fitted; a file that
            is not the training table becomes the test split, and the training split is empty.

    Returns:
        Inputs are ``(n, features)`` float32. Targets are int64 classes, one for each spelling of a
        label, sorted as numbers if all of them are numbers; or float32 real values.
        ``preparation`` holds columns, means, standard deviations, categories and classes;
        ``load_options.preparation`` applies it to another table.

    Raises:
        UserError: if a file or an option is invalid, a row is bad, there is only one class, or the
            inputs would not fit into memory.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = "size,color,kind\n1,red,cat\n3,blue,dog\n1,red,cat\n3,red,dog\n"
        ...     _ = Path(folder, "pets.csv").write_text(rows)
        ...     pets = load_table("pets.csv", {"label": "kind"}, LoadOptions(Path(folder), 0, 0.5))
        >>> pets.classes, pets.train.inputs.dtype, pets.train.inputs[:, 0].sort().values.tolist()
        (('cat', 'dog'), torch.float32, [-1.0, 1.0])
    """
    check_options("table", options, OPTIONS)
    task: Task | None = choice("task", options, ("classification", "regression"))  # type: ignore[assignment]
    rare: Rare = choice("rare", options, ("error", "train", "drop")) or "error"  # type: ignore[assignment]
    given = known_preparation(load_options.preparation, where, TablePreparation)
    spelling = _spelling(options, given)
    words = [*_words(options, "drop"), *map(unquote, _words(options, "drop"))]
    grouped = {options.get("group"), unquote(options.get("group", "")), given and given.group}
    how = {"decimal": spelling.decimal, "ignored": ({*words} - grouped).__contains__}
    tables = read_tables(where, options, load_options, **how)
    first = tables[0]
    label = options.get("label", given.label if given else None)
    if label is None:
        names = ", ".join(first.names[:20]) + (", ..." if len(first.names) > 20 else "")
        raise UserError(
            f"table:{where} needs the option label=COLUMN. {first.file} has the columns {names}."
        )
    index = column_index(label, first, "label")
    categories, drop = (_columns(options, name, first) for name in ("categories", "drop"))
    group = _group(options, given, first)
    for option, contradicts in (
        ("drop", index in drop),
        ("group", index == group),
        ("categories", index in categories and task == "regression"),
    ):
        if contradicts:
            raise UserError(
                f"{option}: expected columns other than the label, got {first.names[index]!r}. "
                f"Remove it from {option}."
            )
    return assemble(
        tables,
        label=index,
        group=group,
        categories=categories,
        drop=drop,
        spelling=spelling,
        task=task,
        rare=rare,
        load_options=load_options,
    )


def read_tables(
    where: str, options: Mapping[str, str], load_options: LoadOptions, **how: Any
) -> list[Table]:
    """Read the table at a path, and that of the option ``test``; ``read_table`` describes ``how``.

    Raises:
        UserError: as ``read_table`` does, or if a table has no rows.
    """
    header = {None: None, "yes": True, "no": False}[choice("header", options, ("yes", "no"))]
    tables: list[Table] = []
    for file in (where, options["test"]) if "test" in options else (where,):
        if tables:  # without header=, the test file has a header too
            header = header is not False if Path(file).suffix.lower() in TEXT_FORMATS else None
        path = existing(file, load_options.root, what="table")
        table = read_table(path, file=file, header=header, max_bytes=load_options.max_bytes, **how)
        if not len(table.rows) and not table.bad:
            raise UserError(f"{file} has a header but no rows. Add rows, or pass header=no.")
        if tables and path.samefile(existing(where, load_options.root, what="table")):
            text = f"test={file} is the training table, so the test rows are trained on too"
            table = replace(table, notes=(*table.notes, Note(text, doubtful=True)))
        tables.append(table)
    return tables


def _spelling(options: Mapping[str, str], given: TablePreparation | None) -> Spelling:
    """Return how cells are written: by the options, or else as in training."""
    usual = Spelling()
    if given is not None:
        usual = Spelling(tuple(given.missing), given.decimal, given.thousands)
    missing = usual.missing
    if "missing" in options:
        missing = tuple(separated_words(options["missing"]))
        if given is not None and missing != usual.missing:
            raise UserError(
                f"missing={options['missing']}: expected missing={','.join(usual.missing)}, as in "
                "training. Remove the option."
            )
    marks = {}
    for name in ("decimal", "thousands"):
        marks[name] = unquote(options.get(name, getattr(usual, name)))
        if name in options and (len(marks[name]) != 1 or marks[name] in "+-eE0123456789"):
            raise UserError(f"{name}={options[name]}: expected one character, such as ',' or '.'.")
    if marks["decimal"] == marks["thousands"]:
        raise UserError(
            f"decimal and thousands are both {marks['decimal']!r}. Give them different values."
        )
    return Spelling(missing, **marks)


def column_index(word: str, table: Table, option: str) -> int:
    """Return the index of a column that is given by its name or its number."""
    word = word if word in table.names else unquote(word)
    if table.names.count(word) == 1:
        return table.names.index(word)
    if word in table.names:
        raise UserError(
            f"{table.file} has several columns {word!r}. Give {option} as the number of the column."
        )
    if re.fullmatch("-?[0-9]{1,9}", word) and -len(table.names) <= int(word) < len(table.names):
        return int(word) % len(table.names)
    # The nearest names first, since there may be thousands.
    known = [*difflib.get_close_matches(word, table.names), *table.names[:20]]
    raise UserError(f"{table.file}: {unknown('column', word, dict.fromkeys(known))}")


def _group(options: Mapping[str, str], given: TablePreparation | None, table: Table) -> int | None:
    """Return the index of the column of groups: as the option says, or else as in training."""
    if "group" not in options:
        known = given is not None and given.group in table.names
        return table.names.index(str(given.group)) if given and known else None
    group = column_index(options["group"], table, "group")
    if given is not None and given.group != table.names[group]:
        raise UserError(
            f"group={options['group']}: expected "
            f"{'no groups' if given.group is None else f'group={given.group}'}, as in training. "
            "Remove the option."
        )
    return group


def _columns(options: Mapping[str, str], option: str, table: Table) -> set[int]:
    return {column_index(word, table, option) for word in _words(options, option)}


def _words(options: Mapping[str, str], option: str) -> list[str]:
    return [word.strip() for word in options[option].split(",")] if option in options else []
