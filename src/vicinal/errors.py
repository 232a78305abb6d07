"""The errors that a person caused and can mend."""

import difflib
from collections.abc import Iterable

_LONGEST = 100
"""Characters of an unknown name that are compared and shown."""


class UserError(Exception):
    """What was wanted, what came, what to try: one sentence, shown without a traceback."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that nobody has, with the nearest names that there are.

    Example:
        >>> unknown("network", "smal-cnn", ["small-cnn", "mlp"])
        "there is no network 'smal-cnn'; did you mean 'small-cnn'? (there are: small-cnn, mlp)"
    """
    names = list(known)
    name = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no {what} {name!r}{guess} (there are: {', '.join(names)})"
