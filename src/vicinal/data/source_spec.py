"""The words that name a data set: ``NAME:WHERE?option=value&option=value``."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote

from vicinal.errors import UserError, unknown

_OPTIONS = re.compile("[a-z_]+=[^&]+(&[a-z_]+=[^&]+)*")


class Spec(NamedTuple):
    """What names a data set, taken apart."""

    name: str
    where: str
    options: dict[str, str]


def parse(spec: str) -> Spec:
    """Take the name of a data set apart.

    Percent-encoding stays: ``existing`` and the sources decode paths and values.

    Raises:
        UserError: if an option has no value, or comes twice.

    Example:
        >>> parse("rec:train.rec,test.rec?size=32&channels=1")
        Spec(name='rec', where='train.rec,test.rec', options={'size': '32', 'channels': '1'})
    """
    # A path may hold a question mark too: options begin at the first that options follow.
    places = [found.start() for found in re.finditer(r"\?", spec)]
    fits = [i for i in places if _OPTIONS.fullmatch(spec, i + 1)]
    cut = (fits or places or [len(spec)])[0]
    front, behind = spec[:cut], spec[cut + 1 :]
    name, _, where = front.partition(":")
    options: dict[str, str] = {}
    for word in behind.split("&") if behind else []:
        key, found, value = word.partition("=")
        if not found or not key or not value:
            raise UserError(
                f"{spec}: expected option=value after the question mark, got {word!r}; write ? as "
                "%3F in a path, and & as %26"
            )
        if key in options:
            raise UserError(f"{spec}: the option {key} comes twice")
        options[key] = value
    return Spec(name, where, options)


def check_options(name: str, options: Mapping[str, str], known: Iterable[str]) -> None:
    """Refuse an option that a source does not have.

    Example:
        >>> check_options("rec", {"sise": "32"}, ["size", "channels"])
        Traceback (most recent call last):
        vicinal.errors.UserError: there is no option of rec 'sise'; did you mean 'size'? ...
    """
    names = list(known)
    for option in options:
        if option not in names:
            if not names:
                raise UserError(f"{name} has no options, got {option!r}")
            raise UserError(unknown(f"option of {name}", option, names))


def existing(where: str, root: Path, *, what: str) -> Path:
    """Return the path that somebody means: under the root if it is there, else as it stands.

    A path that is at neither place is decoded first: ``%3F`` stands for ``?``.

    Raises:
        UserError: if it is at neither place.
    """
    if not where:
        raise UserError(f"wanted the path of a {what} behind the colon, found nothing")
    try:
        path = Path(where).expanduser()
        decoded = Path(unquote(where)).expanduser()
        for candidate in (root / path, path, root / decoded, decoded):
            if candidate.exists():
                return candidate
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{where!r} is no path of a {what} ({error})") from error
    also = "" if path.is_absolute() else f", nor under {root}"
    raise UserError(f"there is no {what} {where}{also}; check the path")


def separated_words(value: str) -> list[str]:
    """Return words that commas separate, decoded one by one, so that ``%2C`` is a comma in a word.

    Example:
        >>> separated_words("R%26D,last%2C first")
        ['R&D', 'last, first']
    """
    return [unquote(word) for word in value.split(",")]


def positive(name: str, options: Mapping[str, str]) -> int | None:
    """Return an option that counts something, or None if it is not there.

    Raises:
        UserError: if it is no whole number from 1 to 100,000.
    """
    if name not in options:
        return None
    value = options[name]
    if not (value.isascii() and value.isdigit() and len(value) < 7 and 1 <= int(value) <= 100_000):
        raise UserError(f"{name}={value}: wanted a whole number from 1 to 100000")
    return int(value)


def choice(name: str, options: Mapping[str, str], known: Sequence[str]) -> str | None:
    """Return an option that has a few values, or None if it is not there.

    Raises:
        UserError: if it has another value.
    """
    if name in options and options[name] not in known:
        raise UserError(unknown(f"value of the option {name}", options[name], known))
    return options.get(name)


def shape_option(name: str, options: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return an option such as ``32x32x3``: height, width, channels; None if it is not there.

    Raises:
        UserError: if it is anything else.
    """
    if name not in options:
        return None
    words = options[name].split("x")
    if len(words) != 3 or not all(
        w.isascii() and w.isdigit() and len(w) < 6 and int(w) for w in words
    ):
        raise UserError(f"{name}={options[name]}: wanted HEIGHTxWIDTHxCHANNELS, such as 32x32x3")
    if words[2] not in {"1", "3"}:
        raise UserError(f"{name}={options[name]}: images have 1 or 3 channels")
    return tuple(int(word) for word in words)


def channels_option(options: Mapping[str, str]) -> Literal[1, 3]:
    """Return what ``channels`` says, 3 if it is not there.

    Raises:
        UserError: if it is neither 1 nor 3.
    """
    value = options.get("channels", "3")
    if value == "1":
        return 1
    if value == "3":
        return 3
    raise UserError(f"channels={value}: wanted 1 for gray images or 3 for colors")
