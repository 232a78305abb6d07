"""Load a data set from a table: normalized numbers, one-hot categories, and a label."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from vicinal.data.dataset import DataSet, LoadOptions
from vicinal.data.source_spec import check_options, existing, separated_words
from vicinal.data.tables.assemble import Rare, Task, assemble, check_preparation
from vicinal.data.tables.columns import MISSING, Spelling
from vicinal.data.tables.delimited_text import Table
from vicinal.data.tables.read_table import TEXT_FORMATS, read_table
from vicinal.errors import UserError, unknown

OPTIONS = (
    *("label", "test", "header", "missing", "decimal", "thousands"),
    *("categories", "drop", "task", "rare"),
)


def load_table(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    r"""Load a table: the data source ``table:FILE?label=COLUMN``.

    Columns are named by their header, or else by their number from 0; negative numbers count from
    the end. A column holds numbers if more than half of its cells that are not missing do, and
    categories otherwise; Parquet and ARFF say so themselves. Inputs are the numbers, in the order
    of the file, and after them the categories, in that order too:

    - Numbers have the mean of the training split subtracted and are divided by its standard
      deviation (dividing by ``n``), both over the cells that are not missing. A missing number
      becomes the training mean, so 0, without a column that marks it. A column that is constant
      in the training split is 0 in both splits.
    - Categories are one-hot over those of the training split, missing being one of them. One that
      only the test split has is all zeros.

    Args:
        where: the file: ``.csv``, ``.tsv``, ``.txt``, ``.data``, ``.arff`` or ``.parquet``. A
            relative path is looked for under ``wanted.root`` first.
        options: texts, of which only the first is needed:

            - ``label``: the column to predict.
            - ``test``: a second file with the same columns in any order, the test split. Without
              it a share ``wanted.test_fraction`` of the rows is, of each class the same.
            - ``header``: ``yes`` or ``no``, whether the first row of a text file holds names. It
              does by default, with a warning where it holds numbers.
            - ``missing``: the marks of a missing value, separated by commas; by default
              ``?``, ``NA``, ``NaN``, ``nan`` and ``null``. Empty cells are always missing.
            - ``decimal``: the decimal mark, ``.`` by default.
            - ``thousands``: what groups the digits of numbers by three; nothing by default.
            - ``categories``: columns, separated by commas, that hold categories though they look
              like numbers.
            - ``drop``: columns to ignore, separated by commas.
            - ``task``: ``classification`` or ``regression``. By default classification if the
              label is text, or whole numbers of which there are at most 20 different ones, each
              on average twice or more.
            - ``rare``: ``drop`` leaves out rows of classes with too few rows for both splits,
              ``train`` puts them into the training split; by default they are refused.

            Percent-encoding writes what has a meaning in a name: ``%26`` for ``&``, ``%2C`` for a
            comma in the name of a column, ``%3D``, ``%3F``, ``%25``.
        wanted: with ``skip_bad=True`` rows are skipped, and reported in ``Split.skipped``, that
            have too few or too many cells, text or an infinite number in a column of numbers, no
            label, or in a test file a class that the training file does not have. Rows skipped in
            a file that is split are reported in the training split. With ``preparation`` columns
            are found by name, and nothing is fitted; a file without the rows of the training data
            becomes the test split, and the training split is empty.

    Returns:
        Inputs float32 ``(n, features)``; targets int64 classes, one for each spelling of a label,
        sorted as numbers if all are, or float32 numbers as they are. ``preparation`` has the
        columns, means, standard deviations, categories and classes, which ``wanted.preparation``
        applies to another table.

    Raises:
        UserError: if a file or an option is wrong, a row is bad, there is one class only, or the
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
    header = {None: None, "yes": True, "no": False}[_choice(options, "header", ("yes", "no"))]
    task: Task | None = _choice(options, "task", ("classification", "regression"))  # type: ignore[assignment]
    first = _read(where, wanted, header)
    given = wanted.preparation
    if given is not None:
        check_preparation(given, where)
    label = options.get("label", given["label"] if given else None)
    if label is None:
        raise UserError(f"table:{where} needs the option label=COLUMN. {_listed(first)}")
    tables = [first]
    if "test" in options:
        form = Path(options["test"]).suffix.lower()
        tables.append(
            _read(options["test"], wanted, first.has_header if form in TEXT_FORMATS else None)
        )
    rare: Rare = _choice(options, "rare", ("refuse", "train", "drop")) or "refuse"  # type: ignore[assignment]
    return assemble(
        tables,
        label=_column(label, first, "label"),
        categories=_columns(options, "categories", first),
        drop=_columns(options, "drop", first),
        spelling=_spelling(options, given),
        task=task,
        rare=rare,
        wanted=wanted,
    )


def _choice(options: Mapping[str, str], name: str, known: Sequence[str]) -> str | None:
    if name in options and options[name] not in known:
        raise UserError(unknown(f"value of the option {name}", options[name], known))
    return options.get(name)


def _read(where: str, wanted: LoadOptions, header: bool | None) -> Table:
    path = existing(where, wanted.root, what="table")
    table = read_table(path, file=where, header=header, max_bytes=wanted.max_bytes)
    if not len(table.rows) and not table.bad:
        raise UserError(f"{where} has a header and no rows. Add rows, or pass header=no.")
    return table


def _listed(table: Table) -> str:
    more = f" and {len(table.names) - 20:,} more" if len(table.names) > 20 else ""
    return f"{table.file} has the columns {', '.join(table.names[:20])}{more}"


def _spelling(options: Mapping[str, str], given: Mapping[str, Any] | None) -> Spelling:
    """Return how cells are written, by the options, else as in the training."""
    missing = tuple(separated_words(options["missing"])) if "missing" in options else MISSING
    if given is not None:
        trained = tuple(given["missing"])
        if "missing" in options and missing != trained:
            raise UserError(
                f"missing={options['missing']}: the training had missing={','.join(trained)}. "
                "Remove the option."
            )
        missing = trained
    marks = {"decimal": ".", "thousands": ""}
    for name, usual in marks.items():
        marks[name] = unquote(options.get(name, given[name] if given and name in given else usual))
        if name in options and (len(marks[name]) != 1 or marks[name] in "+-eE0123456789"):
            raise UserError(f"{name}={options[name]}: expected one character such as , or .")
    if marks["decimal"] == marks["thousands"]:
        raise UserError(
            f"decimal and thousands are both {marks['decimal']!r}; give them different values"
        )
    return Spelling(missing, **marks)


def _column(word: str, table: Table, option: str) -> int:
    """Return the index of a column that is given by its name or its number."""
    word = word if word in table.names else unquote(word)
    if table.names.count(word) == 1:
        return table.names.index(word)
    if word in table.names:
        raise UserError(f"{table.file} has several columns {word!r}. Give {option} by its number.")
    if re.fullmatch("-?[0-9]{1,9}", word) and -len(table.names) <= int(word) < len(table.names):
        return int(word) % len(table.names)
    # The nearest names first, since there may be thousands.
    known = [*difflib.get_close_matches(word, table.names), *table.names[:20]]
    raise UserError(unknown(f"column of {table.file}", word, dict.fromkeys(known)))


def _columns(options: Mapping[str, str], option: str, table: Table) -> set[int]:
    words = options[option].split(",") if option in options else []
    return {_column(word.strip(), table, option) for word in words}
