"""Read tables from CSV and similar text files, ARFF and Parquet, as columns of text."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.tables.delimited_text import (
    first_row,
    read_delimited_text,
    read_rows,
    without_padding,
)
from vicinal.data.tables.table import Kind, Table, check_size, damaged
from vicinal.errors import UserError

TEXT_FORMATS = (".csv", ".tsv", ".txt", ".data")
FORMATS = (*TEXT_FORMATS, ".arff", ".parquet")

_ATTRIBUTE = re.compile(r"\s*@attribute", re.IGNORECASE)
_DATA = re.compile(r"\s*@data(\s|%|$)", re.IGNORECASE)
_STRING = re.compile(r"\sstring\s*$", re.IGNORECASE)


def read_table(
    path: Path,
    *,
    file: str,
    header: bool | None = None,
    decimal: str = ".",
    ignored: Callable[[str], bool] = lambda name: False,
    max_bytes: int = MAX_BYTES,
) -> Table:
    """Read a file in the format of its extension, one of ``FORMATS``.

    The delimiter of a text file is guessed from its first lines: the tab, semicolon or comma that
    occurs equally often in each of them. If semicolons and commas both do, it is the semicolon if
    there are more of them, or if all commas are between digits. A warning is noted if another one
    fits as well. If none fits, it is the most frequent one in the first line. If that line has
    none, cells are separated by white space; or the file has one column, if that line is one word,
    or no other line has as many words. A first line such as ``sep=;``, which Excel reads, states
    the delimiter. Cells may be quoted with ``"``. Empty rows and white space around cells are
    ignored.

    Args:
        path: path of the file.
        file: its name in errors and notes.
        header: whether the first row has the column names. If None it has, with a note, which is a
            warning if one of its cells is a number or occurs again in its column.
        decimal: the decimal mark. Numbers that a file stores as such are written with it.
        ignored: whether the column of a name is ignored, so that its type does not matter.
        max_bytes: the most bytes of memory that the table may take.

    Raises:
        UserError: if the file cannot be read, is too large, or is not in the format of its
            extension. Rows with too few or too many cells do not raise; they are in ``bad``.
    """
    form = path.suffix.lower()
    if form not in FORMATS:
        raise UserError(
            f"{file}: expected one of the extensions {', '.join(FORMATS)}, got {path.suffix!r}. "
            "Rename the file if it is in one of these formats."
        )
    if header is not None and form not in TEXT_FORMATS:
        raise UserError(f"{file} has column names of its own. Remove the option header.")
    if form == ".parquet":
        data = _read_bytes(path, file, max_bytes)
        return _parquet(data, file, max_bytes, decimal=decimal, ignored=ignored)
    text = read_text(path, file, max_bytes)
    if form == ".arff":
        return _arff(text, file, max_bytes)
    return read_delimited_text(text, file, header, max_bytes=max_bytes, decimal=decimal)


def _read_bytes(path: Path, file: str, max_bytes: int) -> bytes:
    if not path.is_file():
        raise UserError(f"{file} is not a file. Give the path of a table such as data.csv.")
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= max_bytes else b""
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}). Check its path and permissions."
        ) from error
    if size > max_bytes:
        raise UserError(
            f"{file} is {size:,} bytes, over the limit of {max_bytes:,}. Split it, or raise "
            "max_bytes (--max-bytes)."
        )
    return data


def read_text(path: Path, file: str, max_bytes: int) -> str:
    r"""Return the UTF-8 text of a file, with line breaks ``\n``.

    Raises:
        UserError: if the file cannot be read, is too large, empty or not UTF-8 text.
    """
    data = _read_bytes(path, file, max_bytes)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}. "
            "Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise UserError(
            f"{file} is not text: byte 0x00 at offset {data.index(0)}. Save it as UTF-8 text."
        )
    if not text.strip():
        raise UserError(f"{file} is empty. Expected a table with rows.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _arff(text: str, file: str, max_bytes: int) -> Table:
    """Read ARFF: its header with SciPy, its rows with pyarrow, since SciPy ignores extra cells."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from scipy.io import arff

    lines = text.split("\n")
    head = next((i for i, line in enumerate(lines) if _DATA.match(line)), None)
    if head is None:
        raise UserError(f"{file} has no line @data. It is not an ARFF file, or it was cut short.")
    declared = [line for line in lines[:head] if _ATTRIBUTE.match(line)]
    check_size(len(lines) - head, len(declared), len(text), file=file, max_bytes=max_bytes)
    # SciPy does not support string attributes: declare them as numeric instead.
    header = "".join(_STRING.sub(" numeric", line) + "\n" for line in lines[:head]) + "@data\n"
    try:
        attributes = arff.loadarff(io.StringIO(header))[1]
        names = tuple(attributes.names())
        if not names:
            raise ValueError("it declares no attribute")
    except Exception as error:
        raise damaged(file, "the header of an ARFF file", error) from error
    rows = lines[head + 1 :]
    for i, line in enumerate(rows):
        if line.lstrip().startswith("%"):
            rows[i] = ""
        elif line.lstrip().startswith("{"):
            raise UserError(
                f"{file} row {head + i + 2} is sparse ARFF. Save the file in the dense format."
            )
    body = "\n".join(rows)
    if not body.strip():
        raise UserError(f"{file} has a header but no rows. Add rows.")
    quote = "'" if re.search(r"(^|,)[ \t]*'", body, re.MULTILINE) else '"'
    body = without_padding(body, ",", quote)
    first_row(body, file, delimiter=",", quote=quote, above=head + 1)
    table = read_rows(body, file, names, delimiter=",", quote=quote, above=head + 1)
    kinds: list[Kind | None] = []
    for line, name, column in zip(declared, names, table.columns, strict=True):
        kind, values = attributes[name]
        known: dict[str, Kind] = {"numeric": "number", "nominal": "category"}
        kinds.append("category" if _STRING.search(line) else known.get(kind))
        if kind == "nominal":
            spelled = [re.sub(r"^(['\"])(.*)\1$", r"\2", value.strip()) for value in values or ()]
            declared_values = pa.array([*spelled, "?", ""], pa.large_string())
            unknown = pc.invert(pc.is_in(column, value_set=declared_values))
            for i in np.flatnonzero(unknown.to_numpy(zero_copy_only=False)).tolist():
                row = int(table.rows[i])
                table.bad[row] = (
                    f"{file} row {row}: column {name!r} has {column[i].as_py()[:40]!r}, which "
                    "the header does not declare. Correct either."
                )
    return replace(table, kinds=tuple(kinds))


def _parquet(
    data: bytes, file: str, max_bytes: int, *, decimal: str, ignored: Callable[[str], bool]
) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        source = pa.BufferReader(data)
        about = parquet.read_metadata(source)
        # Check the lengths that the file claims before pyarrow allocates memory for them.
        groups = (about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        size = sum(map(abs, groups))
        check_size(about.num_rows, about.num_columns, size, file=file, max_bytes=max_bytes)
        fields = parquet.read_schema(source)
        # Keep dictionaries encoded: a few bytes may stand for a long text in every row.
        texts = [field.name for field in fields if _is_text(field.type)]
        table = parquet.ParquetFile(
            source, page_checksum_verification=True, read_dictionary=texts
        ).read(use_threads=False)
        return table_of_arrow(table, file, max_bytes, decimal=decimal, ignored=ignored)
    except UserError:
        raise
    except Exception as error:
        raise damaged(file, "Parquet", error) from error


def table_of_arrow(
    table: Any,
    file: str,
    max_bytes: int = MAX_BYTES,
    *,
    decimal: str = ".",
    ignored: Callable[[str], bool] = lambda name: False,
) -> Table:
    """Return a ``pyarrow.Table`` as a table of text.

    Args:
        table: with columns of numbers, text or booleans.
        file: its name in errors and notes.
        max_bytes: the most bytes that its text may take.
        decimal: the decimal mark that numbers are written with.
        ignored: whether the column of a name is ignored. It may have any type, and is empty in
            the result.

    Raises:
        UserError: if a column is of another type, or its text takes too many bytes.
        pyarrow.ArrowException: if the table is damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table.validate(full=True)
    names, columns, kinds = [], [], []
    for name, chunks in zip(table.column_names, table.columns, strict=True):
        if name.startswith("__index_level_"):  # pandas writes its row index as a column
            continue
        column = chunks.combine_chunks()
        if ignored(name):
            column = pa.nulls(len(column))
        max_bytes -= _decoded_bytes(column)
        if max_bytes < 0:
            raise UserError(
                f"{file}: the text of its columns up to {name!r} takes more than max_bytes. "
                "Drop columns, or raise max_bytes (--max-bytes)."
            )
        text, kind = _as_text(column, file, name)
        if kind == "number" and decimal != ".":
            text = pc.replace_substring(text, ".", decimal)
        names.append(name)
        columns.append(text)
        kinds.append(kind)
    rows = np.arange(table.num_rows) + 1
    return Table(file, tuple(names), columns, tuple(kinds), rows, {})


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    views = pa.types.is_string_view(kind)  # of Polars
    return bool(views or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _decoded_bytes(column: Any) -> int:
    """Return the number of bytes that the texts of a dictionary-encoded column take decoded."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return 0
    return pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0


def _as_text(column: Any, file: str, name: str) -> tuple[Any, Kind]:
    """Return a column as text, since labels keep their spelling, and its kind."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    type_ = column.type
    kind: Kind = "category"
    if any(f(type_) for f in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)):
        kind = "number"
    elif not (_is_text(type_) or pa.types.is_boolean(type_) or pa.types.is_null(type_)):
        raise UserError(
            f"{file}: column {name!r} is of type {type_}, neither numbers nor text. Convert it, or "
            f"ignore it with drop={name}."
        )
    if pa.types.is_floating(type_):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, type_), column)
    return pc.utf8_trim_whitespace(column.cast(pa.large_string())), kind
