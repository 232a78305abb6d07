"""Select the columns of a table by the names of another."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from vicinal.data.dataset import Note
from vicinal.data.tables.cells import Table
from vicinal.errors import UserError

_SHOWN = 5


def aligned(
    table: Table, names: Sequence[str], *, of: str, label: int | None = None
) -> tuple[Table, list[Note]]:
    """Select and order the columns of a table by name.

    Columns of the same name keep their order among themselves.

    Args:
        table: has these columns, and maybe others.
        names: names of the columns to select.
        of: the owner of these names, for errors and notes.
        label: index in ``table`` of the label, which is appended and matches no name.

    Returns:
        The table, and a note if columns were ignored.

    Raises:
        UserError: if columns are missing.

    Example:
        >>> import numpy as np
        >>> table = Table("t.csv", ("b", "c", "a"), [1, 2, 3], (None,) * 3, np.arange(0), {})
        >>> chosen, notes = aligned(table, ["a", "b"], of="the training")
        >>> chosen.columns, notes[0].text
        ([3, 1], "t.csv: ignored the column 'c', which the training does not have")
    """
    if label is None and tuple(names) == table.names:
        return table, []
    indices = {key: i for i, key in enumerate(_numbered(table.names)) if i != label}
    chosen = [indices.get(key, -1) for key in _numbered(names)]
    missing = [name for name, index in zip(names, chosen, strict=True) if index < 0]
    if missing:
        raise UserError(
            f"{table.file} has no column {listed(missing)}, which {of} has; it has "
            f"{listed(table.names)}. Give it the same header and columns, in any order."
        )
    chosen += [] if label is None else [label]
    surplus = [table.names[i] for i in sorted(set(range(len(table.names))) - set(chosen))]
    notes = []
    if surplus:
        word = "column" if len(surplus) == 1 else "columns"
        notes = [
            Note(f"{table.file}: ignored the {word} {listed(surplus)}, which {of} does not have")
        ]
    return (
        replace(
            table,
            names=tuple(table.names[i] for i in chosen),
            columns=[table.columns[i] for i in chosen],
            kinds=tuple(table.kinds[i] for i in chosen),
        ),
        notes,
    )


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    count: Counter[str] = Counter()
    keys = []
    for name in names:
        keys.append((name, count[name]))
        count[name] += 1
    return keys


def listed(names: Sequence[str]) -> str:
    """Return the first five names as text.

    Example:
        >>> listed([str(k) for k in range(1000)])
        "'0', '1', '2', '3', '4' and 995 more"
    """
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name[:60]) for name in names[:_SHOWN]) + more
