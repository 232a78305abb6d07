"""The string that names a data set: ``NAME:WHERE?option=value&option=value``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from vicinal.data.catalog import SOURCES
from vicinal.errors import UserError, did_you_mean, unknown
from vicinal.options import split_options


class Spec(NamedTuple):
    """A parsed source: its name, its path, and its options."""

    name: str
    where: str
    options: dict[str, str]


def parse_spec(spec: str) -> Spec:
    """Parse the source of a data set.

    ``MODULE.PATH:NAME`` stands for ``import:MODULE.PATH:NAME``. Percent-encoded characters are not
    decoded here, but by the sources.

    Raises:
        UserError: if an option has no value or is repeated, or if there is no such source.

    Example:
        >>> parse_spec("rec:train.rec,test.rec?size=32&channels=1")
        Spec(name='rec', where='train.rec,test.rec', options={'size': '32', 'channels': '1'})
        >>> parse_spec("digit")
        Traceback (most recent call last):
        vicinal.errors.UserError: there is no data source 'digit'. Did you mean 'digits'? ...
    """
    head, options = split_options(spec)
    name, _, where = head.partition(":")
    if name in SOURCES:
        return Spec(name, where, options)
    if "." in name:
        return Spec("import", f"{name}:{where}" if where else name, options)
    raise UserError(unknown("data source", name, SOURCES))


def existing(where: str, root: Path, *, what: str) -> Path:
    """Return the path of an existing file or folder, in the root or in the working directory.

    If neither of them has it, percent-encoded characters are decoded, and it is looked up again.

    Raises:
        UserError: if there is no such path.
    """
    if not where:
        raise UserError(f"expected the path of a {what} after the colon, got nothing")
    try:
        path = Path(where).expanduser()
        decoded = Path(unquote(where)).expanduser()
        for candidate in (root / path, path, root / decoded, decoded):
            if candidate.exists():
                return candidate
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{where!r} cannot be the path of a {what} ({error}). Check the path."
        ) from error
    also = "" if path.is_absolute() else f" in the working directory or in {root}"
    raise UserError(f"there is no {what} {where}{also}{_similar_path(path) or '. Check the path.'}")


def _similar_path(path: Path) -> str:
    """Return a question with the most similar name next to a path that is missing, or ``""``."""
    try:
        return did_you_mean(str(path), map(str, path.parent.iterdir()))
    except OSError:
        return ""


def separated_words(value: str) -> list[str]:
    """Split at commas, and strip and decode each word, so that ``%2C`` is a comma in a word.

    Example:
        >>> separated_words("R%26D, last%2C first")
        ['R&D', 'last, first']
    """
    return [unquote(word.strip()) for word in value.split(",")]


def encoded(word: str) -> str:
    """Encode a word of an option, so that ``separated_words`` returns it.

    Example:
        >>> encoded("R&D (new)"), encoded(" x")
        ('R%26D (new)', '%20x')
    """
    return quote(word, safe="()/" if word != word.strip() else " ()/")


def integer(name: str, options: Mapping[str, str]) -> int | None:
    """Return an integer option from 1 to 100,000, None if it is not given.

    Raises:
        UserError: if it is not such an integer.
    """
    value = options.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 7 and 1 <= int(value) <= 100_000):
        raise UserError(f"{name}={value}: expected an integer from 1 to 100000")
    return int(value)


def shape_option(name: str, options: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return an option such as ``32x32x3``: height, width, channels; None if it is not given.

    Raises:
        UserError: if it is anything else.
    """
    if name not in options:
        return None
    if not re.fullmatch("([1-9][0-9]{0,4}x){2}[13]", options[name]):
        raise UserError(
            f"{name}={options[name]}: expected HEIGHTxWIDTHxCHANNELS with 1 or 3 channels, such as "
            "32x32x3"
        )
    return tuple(int(word) for word in options[name].split("x"))
