"""Guess the column of a table that is to be predicted."""

from collections.abc import Mapping
from pathlib import Path

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import Note
from vicinal.data.tables.read_table import TEXT_FORMATS, read_table
from vicinal.errors import UserError

_NAMES = {
    *("label", "labels", "class", "classes", "target", "targets", "y"),
    *("species", "category", "outcome", "diagnosis", "response"),
}


def guessed_label(path: Path, options: Mapping[str, str]) -> tuple[str, Note]:
    r"""Guess the label: a column that is named like one, else the last column.

    Args:
        path: of the table.
        options: of the source, such as ``header=no``.

    Returns:
        The name or number of the column, and a note for the user, a warning if the last column
        was taken.

    Raises:
        UserError: if several columns are named like a label, or the header looks like data.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "pets.csv").write_text("Species,weight\ncat,4\ndog,12\n")
        ...     guessed_label(Path(folder, "pets.csv"), {})[0]
        'Species'
    """
    another = "?label=COLUMN names another one"
    if options.get("header") == "no":
        return "-1", Note(f"label: guessed the last column; {another}", doubtful=True)
    table = read_table(path, file=str(path), max_bytes=MAX_BYTES)
    doubts = [note for note in table.notes if note.doubtful]
    if doubts and "header" not in options and path.suffix.lower() in TEXT_FORMATS:
        raise UserError(
            f"{doubts[0].text} Also name the label, such as table:{path}?header=no&label=-1 for "
            "the last column."
        )
    named = [name for name in table.names if name.lower() in _NAMES]
    if len(named) > 1:
        raise UserError(
            f"{path}: expected one column that is named like a label, got {', '.join(named)}. "
            f"Write table:{path}?label={named[0]}, or name another one."
        )
    if named:
        text = f"label: guessed the column {named[0]!r} from its name; {another}"
        return named[0], Note(text)
    last = table.names[-1]
    text = f"label: guessed the last column, {last[:60]!r}; {another}"
    return (last if table.names.count(last) == 1 else "-1"), Note(text, doubtful=True)
