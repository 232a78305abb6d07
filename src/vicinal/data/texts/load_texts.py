"""Load a data set from a table with a column of texts and a column of labels."""

import functools
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import pydantic
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, Split
from vicinal.data.source_spec import integer
from vicinal.data.tables.assemble import (
    check_several,
    class_indices,
    classes_of,
    known_preparation,
    other_rows_note,
)
from vicinal.data.tables.bad_rows import BadRows
from vicinal.data.tables.columns import (
    Column,
    Spelling,
    has_other_rows,
    hash_of_groups,
    parse_column,
)
from vicinal.data.tables.load_table import column_index, read_tables
from vicinal.data.tables.new_rows import NewRows
from vicinal.data.tables.table import Table, select_columns
from vicinal.data.texts.tokens import LENGTH, Tokenizer, Tokens, encode, read_tokenizer
from vicinal.data.train_test_split import rows_by_options
from vicinal.errors import UserError
from vicinal.options import check_options

OPTIONS = ("text", "label", "test", "group", "header", "tokenizer", "length")


class TextPreparation(pydantic.BaseModel):
    """How texts become inputs and labels become targets, as a checkpoint stores it.

    Args:
        kind: distinguishes it from the preparation of other data.
        sha256: hash of the rows of the training.
        text: name of the column of texts.
        label: name of the column to predict.
        classes: names of the classes.
        group: name of the column of groups, if there is one.
        tokenizer: as in ``tokenizer.json``.
        padding: the token that fills up short texts.
        length: number of tokens of an input.
        header: whether the training table has names of its columns.
        own_test: whether the test split is a file of its own.
        group_sha256: hash of the groups of the rows, empty without groups.
    """

    model_config = pydantic.ConfigDict(strict=True)

    kind: Literal["text"] = "text"
    sha256: str
    text: str
    label: str
    classes: list[str]
    group: str | None
    tokenizer: str
    padding: int
    length: pydantic.PositiveInt
    header: bool = True
    own_test: bool = False
    group_sha256: str = ""


def load_texts(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load texts: the data source ``text:FILE?text=COLUMN&label=COLUMN&tokenizer=PATH_OR_NAME``.

    Args:
        where: a table, as for ``load_table``.
        options: texts, of which the first three are required:

            - ``text`` and ``label``: the columns of texts and of classes.
            - ``tokenizer``: that of the network, a folder or a name on Hugging Face's hub.
            - ``length``: the number of tokens of an input, special ones included. Longer texts are
              cut, shorter ones filled up with padding. By default that of the longest text, at
              most 128.
            - ``test``: a second file with the same columns, the test split.
            - ``group``: a column whose rows with the same value stay in one split.
            - ``header``: ``yes`` or ``no``, whether the first row of a text file holds names.

        load_options: with ``skip_bad``, rows without a text or a label are skipped. With
            ``preparation``, tokenizer, length, columns and classes are those of the training, and a
            file that does not have the rows of the training becomes the test split.

    Returns:
        Inputs are tokens ``(n, length)`` int64, targets int64 classes. ``preparation`` holds the
        whole tokenizer, so that it is not needed again.

    Raises:
        UserError: if a file or an option is invalid, a row is bad, there is only one class, the
            tokenizer is not available, or the tokens would not fit into ``max_bytes``.
    """
    check_options("text", options, OPTIONS)
    given = known_preparation(load_options.preparation, where, TextPreparation)
    columns = {
        name: options.get(name, getattr(given, name, None)) for name in ("text", "label", "group")
    }
    ignored = functools.partial(_is_unused, {word for word in columns.values() if word})
    first, *more = read_tables(where, options, load_options, ignored=ignored)
    if given and "group" not in options and columns["group"] not in first.names:
        columns["group"] = None  # of new rows
    for name in ("text", "label"):
        if columns[name] is None:
            raise UserError(
                f"text:{where} needs the option {name}=COLUMN. {first.file} has the columns "
                f"{', '.join(first.names[:20])}."
            )
    tables = [first, *(select_columns(table, first.names, of=first.file) for table in more)]
    text, label, group = (
        None if word is None else text_column(tables, column_index(word, first, name))
        for name, word in columns.items()
    )
    assert text is not None
    assert label is not None
    bad = BadRows(tables, label, [], group)
    bad.exclude_missing("text", text)
    classes = tuple(given.classes) if given else classes_of(label, bad.good(0), 1, first)
    targets = class_indices(label, classes)
    bad.exclude_unknown(label, targets.numpy(), "error", trained=given is not None)
    skipped = [bad.raised_or_skipped(k, load_options.skip_bad) for k in range(len(tables))]
    check_several(classes, label, first)
    notes = [note for table in tables for note in table.notes]
    usable = [bad.good(k) for k in range(len(tables))]
    content = text.text.to_pylist()
    sha256 = _hash(content, targets, usable[0])
    groups = None if group is None else torch.from_numpy(group.values.astype(np.int64))
    split_by = None if groups is None else groups[usable[0]]
    of_groups = hash_of_groups(split_by, len(usable[0]))
    if len(usable) == 1 and has_other_rows(given, sha256, of_groups, first.file):
        notes.append(other_rows_note(first, len(usable[0])))
        usable, skipped = [usable[0][:0], usable[0]], [(), *skipped]
    elif len(usable) == 1:
        own = None if groups is None else groups[usable[0]]
        rows = rows_by_options(targets[usable[0]], load_options, classes, own)
        usable, skipped = [usable[0][each] for each in rows], [*skipped, ()]
    tokenizer, length = _tokenizer(options, given, load_options)
    chosen = [content[i] for each in usable for i in each.tolist()]
    size = len(chosen) * (length or LENGTH) * 8
    if size > load_options.max_bytes:
        raise UserError(
            f"{first.file} would take {size:,} bytes as tokens, over the limit of "
            f"{load_options.max_bytes:,}. Lower length=, or raise max_bytes (--max-bytes)."
        )
    tokens = encode(chosen, tokenizer, length=length or LENGTH)
    length = length or max(int(tokens.counts.max(initial=0)), 1)
    notes.append(Note(_summary(tokens, length, tokenizer.padding)))
    ids = torch.from_numpy(tokens.ids[:, :length].copy()).split([len(each) for each in usable])
    train, test = (
        Split(
            inputs,
            targets[rows],
            messages,
            None if groups is None else groups[torch.as_tensor(rows)],
        )
        for inputs, rows, messages in zip(ids, usable, skipped, strict=True)
    )
    preparation = given or TextPreparation(
        sha256=sha256,
        text=text.name,
        label=label.name,
        classes=list(classes),
        group=None if group is None else group.name,
        tokenizer=tokenizer.content,
        padding=tokenizer.padding,
        length=length,
        header=first.header,
        own_test=len(tables) == 2,
        group_sha256=of_groups,
    )
    return DataSet(
        classes,
        train,
        test,
        notes=tuple(notes),
        preparation=load_options.preparation or preparation.model_dump(),
        fixed_test=len(tables) == 2,
    )


def _is_unused(wanted: Collection[str], name: str) -> bool:
    """Return whether a column is none of those that are named; numbers may be any column."""
    named = {*wanted, *map(unquote, wanted)}
    return name not in named and not any(word.lstrip("-").isdigit() for word in wanted)


def prepare_texts(texts: Sequence[str], preparation: Mapping[str, Any]) -> Tensor:
    """Turn new texts into inputs as in training.

    Args:
        texts: any number.
        preparation: ``DataSet.preparation`` of the training data.

    Returns:
        Tokens ``(n, length)`` int64.

    Raises:
        UserError: if it is not the preparation of texts.
    """
    known = TextPreparation.model_validate(preparation)
    tokenizer = Tokenizer(known.tokenizer, known.padding)
    return torch.from_numpy(encode(texts, tokenizer, length=known.length).ids)


def prepare_text_rows(table: Table, preparation: Mapping[str, Any], *, skip_bad: bool) -> NewRows:
    """Prepare the texts of a table, with or without labels, like those of the training table.

    Args:
        table: has the column of texts.
        preparation: ``DataSet.preparation`` of the training data.
        skip_bad: whether rows without a text are skipped instead of raising an error.

    Raises:
        UserError: if there is no such column, or a text is missing and not to be skipped.
    """
    known = TextPreparation.model_validate(preparation)
    text = text_column([table], column_index(known.text, table, "text"))
    bad = BadRows([table], None, [])
    bad.exclude_missing("text", text)
    skipped = bad.raised_or_skipped(0, skip_bad)
    good = bad.good(0)
    inputs = prepare_texts(text.text.take(good).to_pylist(), preparation)
    return NewRows(inputs, table.rows[good], table.notes, skipped)


def text_column(tables: Sequence[Table], i: int) -> Column:
    """Return a column of all tables. Only empty cells are missing: "null" is a text."""
    import pyarrow as pa

    whole = pa.concat_arrays([table.columns[i] for table in tables])
    return parse_column(tables[0].names[i], whole, "category", Spelling(missing=()))


def _tokenizer(
    options: Mapping[str, str], given: TextPreparation | None, load_options: LoadOptions
) -> tuple[Tokenizer, int | None]:
    length = integer("length", options)
    if given is not None:
        if length not in (None, given.length):
            raise UserError(
                f"length={length}: expected length={given.length}, as in training. Remove the "
                "option."
            )
        return Tokenizer(given.tokenizer, given.padding), given.length
    if "tokenizer" not in options:
        raise UserError(
            "text: needs the option tokenizer=PATH_OR_NAME, the tokenizer of the network, such as "
            "tokenizer=distilbert-base-uncased."
        )
    return read_tokenizer(options["tokenizer"], load_options.root), length


def _summary(tokens: Tokens, length: int, padding: int) -> str:
    count = len(tokens.counts)
    mean = float(tokens.counts.mean()) if count else 0.0
    text = f"{count:,} texts have {mean:.1f} tokens on average; inputs have {length}, "
    text += f"filled up with the padding token {padding}"
    if tokens.cut:
        text += f"; {tokens.cut:,} longer texts were cut (length= changes that)"
    return text


def _hash(texts: Sequence[str | None], targets: Tensor, rows: np.ndarray) -> str:
    digest = hashlib.sha256()
    for i in rows.tolist():
        digest.update(f"{len(texts[i] or '')} {int(targets[i])} {texts[i]}\n".encode())
    return digest.hexdigest()
