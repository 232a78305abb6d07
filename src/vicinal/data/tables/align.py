"""Columns of one table in the order of another, by name."""

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
    """Return a table that has certain columns, in a certain order.

    Where several columns have one name, the first of them is the first of the names, and so on.

    Args:
        table: with these columns, and perhaps others.
        names: of the columns wanted.
        of: what has these columns, for errors and notes.
        label: place in ``table`` of a column to append; no name may mean this one.

    Returns:
        The table, and a note where columns were left out.

    Raises:
        UserError: if columns are missing.

    Example:
        >>> import numpy as np
        >>> table = Table("t.csv", ("b", "c", "a"), [1, 2, 3], (None,) * 3, np.arange(0), {})
        >>> chosen, notes = aligned(table, ["a", "b"], of="the training")
        >>> chosen.columns, notes[0].text
        ([3, 1], "t.csv: left out the column 'c', which the training does not have")
    """
    if label is None and tuple(names) == table.names:
        return table, []
    places = {key: i for i, key in enumerate(_numbered(table.names)) if i != label}
    chosen = [places.get(key, -1) for key in _numbered(names)]
    missing = [name for name, place in zip(names, chosen, strict=True) if place < 0]
    if missing:
        raise UserError(
            f"{table.file} has no column {listed(missing)}, which {of} has; it has "
            f"{listed(table.names)}: give it the same header and columns, in any order"
        )
    chosen += [] if label is None else [label]
    surplus = [table.names[i] for i in sorted(set(range(len(table.names))) - set(chosen))]
    notes = []
    if surplus:
        word = "column" if len(surplus) == 1 else "columns"
        notes = [
            Note(f"{table.file}: left out the {word} {listed(surplus)}, which {of} does not have")
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
    """Return some names for a sentence, the first five of them.

    Example:
        >>> listed([str(k) for k in range(1000)])
        "'0', '1', '2', '3', '4' and 995 more"
    """
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name[:60]) for name in names[:_SHOWN]) + more
