"""The cells of text files whose columns are separated by commas, tabs and the like."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vicinal.data.dataset import Note
from vicinal.errors import UserError

Kind = Literal["number", "category"]


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a file, as text.

    Args:
        file: its name in errors and notes.
        names: names of the columns; their numbers from "0" if the file has no names.
        columns: a ``pyarrow.LargeStringArray`` ``(n,)`` each, with nulls of the file itself.
        kinds: the kind of each column that the file declares, or None.
        rows: ``(n,)`` int64, the number of each row in the file, from 1. A header counts too.
        bad: an error message for each row of the file that cannot be used.
        has_header: whether the first row gave the names.
        notes: what was guessed.
    """

    file: str
    names: tuple[str, ...]
    columns: list[Any]
    kinds: tuple[Kind | None, ...]
    rows: np.ndarray
    bad: dict[int, str]
    has_header: bool = False
    notes: tuple[Note, ...] = ()


CELL, COLUMN = 32, 10_000
"""Approximate bytes of memory for each cell and each column while a table is parsed."""


def check_size(rows: int, columns: int, content: int, *, file: str, max_bytes: int) -> None:
    """Raise an error if a table would take too much memory.

    Example:
        >>> check_size(4, 10**6, 0, file="wide.csv", max_bytes=2 * 10**9)
        Traceback (most recent call last):
        vicinal.errors.UserError: wide.csv would take about 10,128,000,000 bytes of memory as a \
table of 4 rows and 1,000,000 columns, over the limit of 2,000,000,000. Divide it, drop columns, \
or raise max_bytes (--max-bytes).
    """
    size = content + CELL * rows * columns + COLUMN * columns
    if size > max_bytes:
        raise UserError(
            f"{file} would take about {size:,} bytes of memory as a table of {rows:,} rows and "
            f"{columns:,} columns, over the limit of {max_bytes:,}. Divide it, drop columns, or "
            "raise max_bytes (--max-bytes)."
        )


def separated(text: str, file: str, header: bool | None, *, max_bytes: int) -> Table:
    """Read delimited text, as ``read_table`` describes."""
    delimiter = _delimiter(next(line for line in text.split("\n") if line.strip()))
    if delimiter == " ":
        text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    check_quotes(text, file, delimiter=delimiter)
    try:
        rows = csv.reader(io.StringIO(text), delimiter=delimiter)
        first = next((row for row in rows if any(cell.strip() for cell in row)), None)
    except csv.Error as error:
        raise UserError(damaged(file, "a table", error)) from error
    if first is None:
        raise UserError(f"{file} has only empty cells")
    check_size(text.count("\n"), len(first), len(text), file=file, max_bytes=max_bytes)
    table = cells(text, file, [str(i) for i in range(len(first))], delimiter=delimiter)
    named = _named_by_its_first_row(table) if header is not False else table
    how = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "white space"}[delimiter]
    return replace(named, notes=tuple(_guesses(table, named, how, guessed=header is None)))


def _delimiter(line: str) -> str:
    bare = re.sub('"[^"]*"', "", line)
    best = max(",;\t", key=bare.count)
    return best if best in bare else " "


def check_quotes(text: str, file: str, *, delimiter: str, quote: str = '"', above: int = 0) -> None:
    """Raise if a quoted cell does not end, where pyarrow would read the rest of the file."""
    if quote not in text:
        return
    escape = "\\" if quote == "'" else None
    reader = csv.reader(
        io.StringIO(text), delimiter=delimiter, quotechar=quote, escapechar=escape, strict=True
    )
    try:
        for _ in reader:
            pass
    except csv.Error as error:
        raise UserError(
            f"{file} line {above + reader.line_num}: {error}. Check the quotes {quote} there and "
            "above."
        ) from error


def cells(
    text: str,
    file: str,
    names: Sequence[str],
    *,
    delimiter: str,
    quote: str = '"',
    above: int = 0,
) -> Table:
    """Read rows of text, of which none names the columns, and which ``above`` lines come before.

    Raises:
        UserError: if pyarrow cannot read them. Rows of the wrong length are in ``bad``.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    bad: dict[int, str] = {}
    left_out: list[int] = []

    def ragged(row: Any) -> str:
        left_out.append(row.number)
        if row.text.strip():
            bad[above + row.number] = (
                f"{file} row {above + row.number} has {row.actual_columns} cells rather than "
                f"{row.expected_columns}; check its separators and quotes"
            )
        return "skip"

    data = text.encode()
    numbers = [str(i) for i in range(len(names))]
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            # In one block, since rows may be longer than the usual block.
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=numbers, block_size=len(data) + 1
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter,
                quote_char=quote,
                escape_char="\\" if quote == "'" else False,
                newlines_in_values=True,
                ignore_empty_lines=False,  # else the rows could not be counted
                invalid_row_handler=ragged,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(numbers, pa.large_string()), strings_can_be_null=False
            ),
        )
        columns = [pc.utf8_trim_whitespace(whole(column)) for column in table.columns]
    except Exception as error:
        raise UserError(damaged(file, "a table", error)) from error
    rows = np.setdiff1d(np.arange(table.num_rows + len(left_out)) + 1, left_out) + above
    full = np.zeros(len(rows), dtype=bool)
    for column in columns:
        full |= pc.not_equal(column, "").to_numpy(zero_copy_only=False)
    kinds: tuple[Kind | None, ...] = (None,) * len(columns)
    return _some(Table(file, tuple(names), columns, kinds, rows, bad), full)


def whole(column: Any) -> Any:
    """Return the chunks of a column as one array."""
    import pyarrow as pa

    return pa.concat_arrays([*column.chunks, pa.array([], column.type)])


def _some(table: Table, keep: np.ndarray) -> Table:
    import pyarrow as pa

    if keep.all():
        return table
    columns = [column.filter(pa.array(keep)) for column in table.columns]
    return replace(table, columns=columns, rows=table.rows[keep])


def _guesses(table: Table, named: Table, how: str, *, guessed: bool) -> list[Note]:
    import pyarrow.compute as pc

    count = len(table.names)
    notes = [Note(f"{table.file}: {len(named.rows):,} rows of {count:,} cells, separated by {how}")]
    if not guessed or not len(table.rows):
        return notes
    numbers = [name for name in named.names if number(name) is not None]
    again = [
        name
        for name, column in zip(named.names, named.columns, strict=True)
        if name and pc.index(column, name).as_py() >= 0
    ]
    why = "numbers such as" if numbers else "words that occur again below, such as"
    if numbers or again:
        text = f"has {why} {(numbers or again)[0][:40]!r}, and was read as the header; pass "
        text = f"{table.file}: the first row {text}header=no if it is data, else header=yes"
        notes.append(Note(text, doubtful=True))
    else:
        notes.append(Note(f"{table.file}: the first row is the header"))
    return notes


def _named_by_its_first_row(table: Table) -> Table:
    if not len(table.rows):
        return table
    names = tuple(column[0].as_py() for column in table.columns)
    return replace(_some(table, np.arange(len(table.rows)) > 0), names=names, has_header=True)


def number(text: str) -> float | None:
    """Return the number in a cell, or None; ``inf`` and ``nan`` are not numbers.

    Example:
        >>> number("-1.5e3"), number("1_000"), number("inf")
        (-1500.0, None, None)
    """
    plain = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
    return float(text) if plain else None


def damaged(file: str, wanted: str, error: Exception) -> str:
    """Return the error message for a file that a library cannot parse."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{file} cannot be read as {wanted} ({reason}). It may be damaged or in another format."
