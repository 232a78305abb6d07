"""What a reader of tables guessed, in sentences for its user."""

from collections.abc import Mapping

from vicinal.data.dataset import Note


def unseen_note(unseen: Mapping[str, int], rows: int) -> Note:
    """Warn of categories that the training split lacks.

    Example:
        >>> unseen_note({"color": 12}, 100).text
        "categories that the training never saw, taken as none of its categories: 'color' in 12 \
of 100 rows"
    """
    worst = sorted(unseen, key=lambda name: -unseen[name])
    shown = ", ".join(f"{name[:60]!r} in {unseen[name]:,} of {rows:,} rows" for name in worst[:5])
    more = f", and {len(worst) - 5:,} more columns" if len(worst) > 5 else ""
    return Note(
        f"categories that the training never saw, taken as none of its categories: {shown}{more}",
        doubtful=True,
    )
