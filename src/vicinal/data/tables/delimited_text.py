"""Read delimited text, such as CSV, as columns of text."""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from vicinal.data.dataset import Note
from vicinal.data.tables.table import Table, check_size, damaged, number
from vicinal.errors import UserError

_DELIMITERS = {
    "\t": "tabs",
    ";": "semicolons",
    ",": "commas",
    "|": "vertical bars",
    " ": "white space",
}
_LINES, _CHARACTERS = 20, 100_000
"""The most lines and characters from which the delimiter is guessed."""
_MOST_ROWS = 1000
"""The most rows in which words are counted, to tell white space from one column."""


def read_delimited_text(
    text: str, file: str, header: bool | None, *, max_bytes: int, decimal: str = "."
) -> Table:
    """Read delimited text, as ``read_table`` describes."""
    stated = re.match(r'"?sep=([,;\t|])"?(?=\n)', text, re.IGNORECASE)  # Excel's first line
    text = text[stated.end() :] if stated else text
    delimiter, others = (stated[1], []) if stated else _delimiters(text, decimal)
    if delimiter == " ":
        text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    else:
        text = without_padding(text, delimiter)
    first = first_row(text, file, delimiter=delimiter)
    if not first:
        raise UserError(f"{file} has only empty cells. Expected a table with rows.")
    check_size(text.count("\n"), len(first), len(text), file=file, max_bytes=max_bytes)
    names = tuple(str(i) for i in range(len(first)))
    table = read_rows(text, file, names, delimiter=delimiter)
    table = replace(table, header=header is not False)
    guessed = []
    if header is not False and len(table.rows):
        names = tuple(column[0].as_py() for column in table.columns)
        columns = [column.slice(1) for column in table.columns]
        table = replace(table, names=names, columns=columns, rows=table.rows[1:])
        guessed = [_header_note(table)] if header is None else []
    how = f"{len(table.rows):,} rows of {len(names):,} cells, separated by {_DELIMITERS[delimiter]}"
    if others:
        also = " or ".join(_DELIMITERS[other] for other in others)
        guessed.append(
            Note(
                f"{file}: the rows were divided at {_DELIMITERS[delimiter]}, but the first ones "
                f"also have the same number of {also} each. If that is wrong, save the file with "
                "tabs.",
                doubtful=True,
            )
        )
    return replace(table, notes=(Note(f"{file}: {how}"), *guessed))


def _delimiters(text: str, decimal: str) -> tuple[str, list[str]]:
    """Guess the delimiter from the first lines; also return others that divide them as regularly.

    Example:
        >>> _delimiters("1,5;2,5;yes 3,0;4,25;no 10;0,5;no".replace(" ", chr(10)), ".")
        (';', [])
    """
    sample = re.sub('"[^"]*"', "", text[:_CHARACTERS])
    lines = [line for line in sample.split("\n") if line.strip()]
    if len(text) > _CHARACTERS and len(lines) > 1:
        del lines[-1]  # it is cut off
    lines = lines[:_LINES]
    below = lines[1:] or lines
    decimals = any("," in line for line in below) and not any(
        re.search(r"(?<!\d),|,(?!\d)", line) for line in below
    )
    counts = {one: [line.count(one) for line in lines] for one in "\t;,"}
    if len(lines) > 1 and min(counts[","]) > 0:  # cells may be padded with tabs
        filled = [re.sub(r"[ \t]*,[ \t]*", ",", line).strip() for line in lines]
        counts["\t"] = [line.count("\t") for line in filled]
    regular = [
        one for one, found in counts.items() if len(lines) > 1 and found[0] and len(set(found)) == 1
    ]
    if regular == [","] and decimals and decimal == "," and " " in lines[0].strip():
        return " ", []
    if regular:
        chosen = regular[0]
        if chosen == ";" and "," in regular and not decimals:
            chosen = max(",;", key=lambda one: counts[one][0])
        if decimals and decimal == "," and chosen != ",":
            regular = [chosen]
        most = counts[chosen][0]
        return chosen, [one for one in regular if one != chosen and counts[one][0] >= most]
    line = next(line for line in text.split("\n") if line.strip())
    bare = re.sub('"[^"]*"', "", line)
    possible = ";\t" if decimals and decimal == "," and re.search("[;\t]", bare) else ",;\t"
    delimiter = max(possible, key=bare.count)
    if delimiter in bare:
        return delimiter, []
    return (" " if _divided_by_spaces(text) else "\t"), []


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module read cells of any length."""
    before = csv.field_size_limit((1 << 31) - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


@_long_cells()
def _divided_by_spaces(text: str) -> bool:
    """Return whether another row has as many words as the first one, or whether it is the only one.

    Otherwise there is one column, perhaps of texts with spaces in them, or below such a name.
    """
    lines = (" ".join(line.split()) + "\n" for line in io.StringIO(text))
    rows = (row for row in csv.reader(lines, delimiter=" ") if any(row))
    words = []
    with suppress(csv.Error):  # such as a quoted cell that does not end
        words += [len(row) for row in itertools.islice(rows, _MOST_ROWS)]
    return not words or (words[0] > 1 and (len(words) == 1 or words[0] in words[1:]))


def without_padding(text: str, delimiter: str, quote: str = '"') -> str:
    """Remove white space around quoted cells, which CSV parsers would take for a part of the cell.

    Example:
        >>> without_padding('1, "a, b" ,2', ",")
        '1,"a, b",2'
    """
    if not any(f"{one}{quote}" in text or f"{quote}{one}" in text for one in " \t"):
        return text  # which the expression below would find out ten times as slowly
    space = "[ ]*" if delimiter == "\t" else r"[ \t]*"
    cell = r"('(?:[^'\\\n]|\\.)*')" if quote == "'" else r'("(?:[^"\n]|"")*")'
    between = re.escape(delimiter)
    padded = rf"(?:^|(?<={between})){space}{cell}{space}(?={between}|$)"
    return re.sub(padded, r"\1", text, flags=re.MULTILINE)


@_long_cells()
def first_row(
    text: str, file: str, *, delimiter: str, quote: str = '"', above: int = 0
) -> list[str]:
    """Return the first row that is not empty, after checking that all quoted cells end.

    pyarrow would read the rest of the file into a quoted cell that does not end.
    """
    escape = "\\" if quote == "'" else None
    rows = csv.reader(
        io.StringIO(text), delimiter=delimiter, quotechar=quote, escapechar=escape, strict=True
    )
    first: list[str] = []
    try:
        for row in rows:
            first = first or (row if any(cell.strip() for cell in row) else [])
            if first and quote not in text:
                break
            if delimiter == "\t" and _has_rows(row, len(first)):
                raise UserError(
                    f"{file} line {above + rows.line_num}: expected a cell in quotes that ends in "
                    "its row, got one with whole rows in it. If quotes are a part of the text, "
                    "double them, and put the cell into quotes."
                )
    except csv.Error as error:
        raise UserError(
            f"{file} line {above + rows.line_num}: {error}. Check the quotes {quote} in that line "
            "and above it."
        ) from error
    return first


def _has_rows(row: list[str], cells: int) -> bool:
    """Return whether a line inside a cell has as many cells, divided by tabs, as a row."""
    inside = (line for cell in row if "\n" in cell for line in cell.split("\n")[1:-1])
    return cells > 1 and any(line.count("\t") + 1 == cells for line in inside)


def read_rows(
    text: str,
    file: str,
    names: tuple[str, ...],
    *,
    delimiter: str,
    quote: str = '"',
    above: int = 0,
) -> Table:
    """Read rows of text without a header; ``above`` is the number of lines before them.

    Raises:
        UserError: if pyarrow cannot read them. Rows of the wrong length raise no error; they are in
            ``bad`` of the result.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    bad: dict[int, str] = {}
    ragged: list[int] = []

    def skip_ragged(row: Any) -> str:
        ragged.append(row.number)
        if row.text.strip():
            bad[above + row.number] = (
                f"{file} row {above + row.number} has {row.actual_columns} cells rather than "
                f"{row.expected_columns}. Check its separators and quotes."
            )
        return "skip"

    data = text.encode()
    numbers = [str(i) for i in range(len(names))]  # names may be repeated
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            # In one block, since rows may be longer than the default block.
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=numbers, block_size=len(data) + 1
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter,
                quote_char=quote,
                escape_char="\\" if quote == "'" else False,
                newlines_in_values=True,
                ignore_empty_lines=False,  # otherwise, rows could not be counted
                invalid_row_handler=skip_ragged,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(numbers, pa.large_string()), strings_can_be_null=False
            ),
        )
    except Exception as error:
        raise damaged(file, "a table", error) from error
    columns = [pc.utf8_trim_whitespace(column.combine_chunks()) for column in table.columns]
    rows = np.setdiff1d(np.arange(table.num_rows + len(ragged)) + 1, ragged) + above
    used = np.zeros(len(rows), dtype=bool)
    for column in columns:
        used |= pc.not_equal(column, "").to_numpy(zero_copy_only=False)
    if not used.all():
        columns = [column.filter(pa.array(used)) for column in columns]
    return Table(file, names, columns, (None,) * len(names), rows[used], bad)


def _header_note(table: Table) -> Note:
    """Report that the first row was read as the header, and warn if it looks like data."""
    import pyarrow.compute as pc

    numbers = [name for name in table.names if number(name) is not None]
    columns = zip(table.names, table.columns, strict=True)
    repeated = [name for name, column in columns if name and pc.index(column, name).as_py() >= 0]
    if not numbers and not repeated:
        return Note(f"{table.file}: the first row is the header")
    why = "numbers such as" if numbers else "words that occur again below, such as"
    return Note(
        f"{table.file}: the first row has {why} {(numbers or repeated)[0][:40]!r}, and was read as "
        "the header. Pass header=no if it is data, or header=yes to confirm.",
        doubtful=True,
    )
