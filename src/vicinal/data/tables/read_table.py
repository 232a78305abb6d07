"""Read tables from CSV and similar text files, ARFF and Parquet, as columns of text."""

import io
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.tables.delimited_text import (
    Kind,
    Table,
    cells,
    check_quotes,
    check_size,
    damaged,
    separated,
    whole,
)
from vicinal.errors import UserError

TEXT_FORMATS = (".csv", ".tsv", ".txt", ".data", ".labels")
_ATTRIBUTE = re.compile(r"\s*@attribute\s", re.IGNORECASE)

FORMATS = (*TEXT_FORMATS, ".arff", ".parquet")


def read_table(
    path: Path, *, file: str, header: bool | None = None, max_bytes: int = MAX_BYTES
) -> Table:
    """Read a file in the format of its extension, one of ``FORMATS``.

    The delimiter of text files is the most frequent of comma, semicolon and tab in the first line,
    or white space if there is none of them. Cells may be quoted with ``"``. Empty rows and white
    space around cells are ignored.

    Args:
        path: path of the file.
        file: its name in errors and notes.
        header: whether the first row has the column names. If None it has, with a note, which is a
            warning if one of its cells is a number or occurs again in its column.
        max_bytes: the most bytes of memory that the table may take.

    Raises:
        UserError: if the file cannot be read, is too large, or is not in the format of its
            extension. Rows with too few or too many cells do not raise; they are in ``bad``.
    """
    form = path.suffix.lower()
    if form not in FORMATS:
        raise UserError(
            f"{file}: expected the extension {' '.join(FORMATS)}, got {path.suffix!r}. Rename the "
            "file if it is in one of these formats."
        )
    if header is not None and form not in TEXT_FORMATS:
        raise UserError(f"{file} has column names of its own. Remove the option header.")
    data = _bytes(path, file, max_bytes)
    if form == ".parquet":
        return _parquet(data, file, max_bytes)
    text = _text(data, file)
    if form == ".arff":
        return _arff(text, file, max_bytes)
    return separated(text, file, header, max_bytes=max_bytes)


def _bytes(path: Path, file: str, max_bytes: int) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise UserError(f"{file} is not a file. Give the path of a table such as data.csv.")
        if about.st_size > max_bytes:
            raise UserError(
                f"{file} has {about.st_size:,} bytes, over the limit of {max_bytes:,}. Divide it, "
                "or raise max_bytes (--max-bytes)."
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}. Check its path and spelling.") from error
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{file} cannot be read ({reason}). Check its path and permissions."
        ) from error
    if not data:
        raise UserError(f"{file} is empty. Expected a table with rows.")
    return data


def _text(data: bytes, file: str) -> str:
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
    """Read ARFF: its header by SciPy, its rows by pyarrow, since SciPy drops surplus cells."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from scipy.io import arff

    lines = text.split("\n")
    head = next((i for i, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if head is None:
        raise UserError(f"{file} has no line @data. It is not an ARFF file, or it was cut short.")
    try:
        declared_count = sum(bool(_ATTRIBUTE.match(line)) for line in lines[:head])
        check_size(len(lines) - head, declared_count, len(text), file=file, max_bytes=max_bytes)
        strings = _hide_strings(lines, head)
        _, about = arff.loadarff(io.StringIO("\n".join(lines[: head + 1]) + "\n"))
        names = about.names()
        types = [("string", None) if k in strings else about[n] for k, n in enumerate(names)]
        if not names:
            raise ValueError("it declares no attribute")
    except UserError:
        raise
    except Exception as error:
        raise UserError(damaged(file, "the header of an ARFF file", error)) from error
    above = head + 1
    lines = lines[above:]
    for i, line in enumerate(lines):
        if line.lstrip().startswith("%"):
            lines[i] = ""
        elif line.lstrip().startswith("{"):
            raise UserError(
                f"{file} row {above + i + 1} is sparse ARFF. Save the file in the dense format."
            )
    body = "\n".join(lines)
    if not body.strip():
        raise UserError(f"{file} has a header and no rows")
    quote = "'" if "'" in body else '"'
    body = re.sub(rf",[ \t]+(?={quote})", ",", body)
    body = re.sub(rf"(?<=[^\\]{quote})[ \t]+(?=,|$)", "", body, flags=re.MULTILINE)
    check_quotes(body, file, delimiter=",", quote=quote, above=above)
    table = cells(body, file, names, delimiter=",", quote=quote, above=above)
    known: dict[str, Kind] = {"numeric": "number", "nominal": "category", "string": "category"}
    for name, column, (kind, values) in zip(names, table.columns, types, strict=True):
        if kind == "nominal":
            spelled = [value.strip() for value in values or ()]
            declared = pa.array([*spelled, "?", ""], pa.large_string())
            foreign = pc.invert(pc.is_in(column, value_set=declared))
            for place in np.flatnonzero(foreign.to_numpy(zero_copy_only=False)).tolist():
                row = int(table.rows[place])
                table.bad[row] = (
                    f"{file} row {row}: column {name!r} has {column[place].as_py()[:40]!r}, which "
                    "the header does not declare. Correct either."
                )
    return replace(table, kinds=tuple(known.get(kind) for kind, _ in types))


def _hide_strings(lines: list[str], head: int) -> set[int]:
    """Declare string attributes as numbers, since SciPy refuses them; return which they are."""
    strings, count = set(), -1
    for i, line in enumerate(lines[:head]):
        if _ATTRIBUTE.match(line):
            count += 1
            declared, found = re.subn(r"\sstring\s*$", " numeric", line, flags=re.IGNORECASE)
            if found:
                lines[i] = declared
                strings.add(count)
    return strings


def _parquet(data: bytes, file: str, max_bytes: int) -> Table:
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
        texts = [
            f.name for f in fields if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
        ]
        # Keep dictionaries encoded: a few bytes may stand for a long text in every row.
        table = parquet.ParquetFile(
            source, page_checksum_verification=True, read_dictionary=texts
        ).read(use_threads=False)
        table.validate(full=True)
        # pandas writes its row index as a column.
        named = enumerate(table.column_names)
        used = [(i, name) for i, name in named if not name.startswith("__index_level_")]
        typed = []
        for i, name in used:
            column = whole(table.column(i))
            if pa.types.is_dictionary(column.type):
                max_bytes -= _length(column)
                if max_bytes < 0:
                    raise UserError(
                        f"{file}: the text of its columns up to {name!r} takes more than "
                        "max_bytes. Drop columns, or raise max_bytes (--max-bytes)."
                    )
            typed.append(_typed(column, file, name))
    except UserError:
        raise
    except Exception as error:
        raise UserError(damaged(file, "Parquet", error)) from error
    columns, kinds = [text for text, _ in typed], tuple(kind for _, kind in typed)
    names = tuple(name for _, name in used)
    return Table(file, names, columns, kinds, np.arange(table.num_rows) + 1, {})


def _length(column: Any) -> int:
    """Return the bytes that the texts of a dictionary-encoded column take once decoded."""
    import pyarrow.compute as pc

    try:
        lengths = pc.binary_length(column.dictionary)
    except NotImplementedError:  # a dictionary of numbers
        return 0
    return pc.sum(lengths.take(column.indices)).as_py() or 0


def _typed(column: Any, file: str, name: str) -> tuple[Any, Kind]:
    """Return a column as text, since labels keep their spelling, and its kind."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_a = pa.types
    if is_a.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_a.is_float16(column.type):
        column = column.cast(pa.float32())
    if is_a.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    text = (is_a.is_string, is_a.is_large_string, is_a.is_boolean, is_a.is_null)
    numbers = (is_a.is_integer, is_a.is_floating, is_a.is_decimal)
    if not any(fits(column.type) for fits in (*text, *numbers)):
        raise UserError(
            f"{file}: column {name!r} is of type {column.type}, neither numbers nor text. "
            "Convert it, or save the table without it."
        )
    kind: Kind = "number" if any(fits(column.type) for fits in numbers) else "category"
    return pc.utf8_trim_whitespace(column.cast(pa.large_string())), kind
