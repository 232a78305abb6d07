"""Guess the column of a table that is to be predicted."""

from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import unquote

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import Note
from vicinal.data.source_spec import encoded, separated_words
from vicinal.data.tables.columns import Spelling
from vicinal.data.tables.load_table import column_index
from vicinal.data.tables.read_table import TEXT_FORMATS, read_table
from vicinal.data.tables.table import Table
from vicinal.errors import UserError

_NAMES = {
    *("label", "labels", "class", "classes", "target", "targets", "y"),
    *("species", "category", "outcome", "diagnosis", "response"),
}

_SPACES = 4  # in a cell on average, from which on a column has texts


def guessed_label(
    path: Path, options: Mapping[str, str], max_bytes: int = MAX_BYTES
) -> tuple[str, Note]:
    r"""Guess the label: a column that is named like one, else the last column.

    Args:
        path: path of the table.
        options: options of the source, such as ``header=no``.
        max_bytes: the most bytes that the table may take.

    Returns:
        The name or number of the column, and a note for the user, a warning if the last column
        was taken.

    Raises:
        UserError: if several columns are named like a label, the header looks like data, the label
            is missing in most rows, or another column has texts.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "pets.csv").write_text("Species,weight\ncat,4\ndog,12\n")
        ...     guessed_label(Path(folder, "pets.csv"), {})[0]
        'Species'
    """
    another = "?label=COLUMN names another one"
    headless = options.get("header") == "no"
    words = [word.strip() for word in options.get("drop", "").split(",") if word.strip()]
    names = {*words, *map(unquote, words)}
    table = read_table(
        path,
        file=str(path),
        header=False if headless else None,
        decimal=unquote(options.get("decimal", ".")),
        ignored=names.__contains__,
        max_bytes=max_bytes,
    )
    doubts = [note for note in table.notes if note.doubtful and "header=no" in note.text]
    if doubts and "header" not in options and path.suffix.lower() in TEXT_FORMATS:
        raise UserError(
            f"{doubts[0].text} Also name the label, such as table:{path}?header=no&label=-1 for "
            "the last column."
        )
    dropped = {column_index(word, table, "drop") for word in words}
    if "group" in options:
        dropped.add(column_index(options["group"], table, "group"))
    left = [name for k, name in enumerate(table.names) if k not in dropped]
    lower = {name.lower() for name in left}
    known = _NAMES - {"y"} if "x" in lower else _NAMES  # coordinates
    named = [name for name in left if name.lower() in known]
    if len(named) > 1:
        raise UserError(
            f"{path}: expected one column that is named like a label, got {', '.join(named)}. "
            f"Write table:{path}?label={_in_source(named[0], table)}, or name another one."
        )
    # A comma at the end of each line makes a last column without a name.
    last = len(table.names) - 1
    while last and (
        last in dropped
        or ((headless or not table.names[last]) and not any(table.columns[last].to_pylist()))
    ):
        last -= 1
    columns = (k for k, name in enumerate(table.names) if k not in dropped and name in named)
    _check_values(table, path, next(columns, last), options)
    if headless:
        at = str(last) if last < len(table.names) - 1 else "-1"
        return at, Note(f"label: guessed the last column; {another}", doubtful=True)
    label = named[0] if named else table.names[last]
    if not label:
        raise UserError(
            f"{path}: the last column has no name. Name it in the header, or write "
            f"table:{path}?label={last} if it is the label."
        )
    _check_texts(table, path, label, dropped)
    if named:
        text = f"label: guessed the column {named[0]!r} from its name; {another}"
        return named[0], Note(text, doubtful=label not in (table.names[0], table.names[last]))
    what = "the last column" if last == len(table.names) - 1 else "the last column with a name"
    text = f"label: guessed {what}, {label[:60]!r}; {another}"
    repeated = table.names.count(label) > 1
    at = str(last) if last < len(table.names) - 1 else "-1"
    return (at if repeated else label), Note(text, doubtful=True)


def _check_values(table: Table, path: Path, index: int, options: Mapping[str, str]) -> None:
    """Raise an error if a label that was guessed is missing in most rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    markers = ["", *Spelling().missing]
    if "missing" in options:
        markers = ["", *separated_words(options["missing"])]
    column = table.columns[index]
    missing = sum(bool(one) for one in pc.is_in(column, pa.array(markers)).to_pylist())
    missing += column.null_count
    if 2 * missing > len(column):
        raise UserError(
            f"{path}: the label was guessed, {table.names[index]!r}, and is missing in "
            f"{missing:,} of {len(column):,} rows. Name the label with ?label=COLUMN."
        )


def _in_source(name: str, table: Table) -> str:
    """Return how a column is written in a source: by its number, from 0, if names are repeated."""
    repeated = table.names.count(name) > 1
    return str(table.names.index(name)) if repeated else encoded(name)


def _check_texts(table: Table, path: Path, label: str, dropped: Collection[int]) -> None:
    """Raise an error if a column other than the label holds texts, not categories."""
    import pyarrow.compute as pc

    for k, (name, column) in enumerate(zip(table.names, table.columns, strict=True)):
        spaces = pc.mean(pc.count_substring(column, " ")).as_py()
        if k not in dropped and name != label and spaces is not None and spaces >= _SPACES:
            known, text = _in_source(label, table), _in_source(name, table)
            raise UserError(
                f"{path}: expected numbers or categories in the columns besides the label, got "
                f"texts in {name!r}. The label {label!r} was guessed: write table:{path}?"
                f"label=COLUMN for another one. To ignore the column of texts, write table:"
                f"{path}?label={known}&drop={text}. For a network of texts, write text:{path}?"
                f"text={text}&label={known}&tokenizer=NAME."
            )
