"""The options behind the name of a data set or a network: ``NAME?option=value&option=value``."""

import re
from collections.abc import Iterable, Mapping, Sequence

from vicinal.errors import UserError, unknown

_OPTIONS = re.compile("[a-z_]+=[^&]+(&[a-z_]+=[^&]+)*")


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """Split a name from its options.

    Percent-encoded characters are not decoded here, but by the code that uses the values.

    Raises:
        UserError: if an option has no value or is repeated.

    Example:
        >>> split_options("rec:train.rec,test.rec?size=32&channels=1")
        ('rec:train.rec,test.rec', {'size': '32', 'channels': '1'})
    """
    # A path may contain question marks too: options begin after the first that fits their syntax.
    marks = [found.start() for found in re.finditer(r"\?", text)]
    fits = [i for i in marks if _OPTIONS.fullmatch(text, i + 1)]
    cut = (fits or marks or [len(text)])[0]
    behind = text[cut + 1 :]
    options: dict[str, str] = {}
    for word in behind.split("&") if behind else []:
        key, _, value = word.partition("=")
        if not key or not value:
            raise UserError(
                f"{text}: expected option=value after the question mark, got {word!r}. Write ? as "
                "%3F in a path, and & as %26."
            )
        if key in options:
            raise UserError(f"{text}: the option {key} is repeated. Remove one.")
        options[key] = value
    return text[:cut], options


def check_options(name: str, options: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise an error for an option that a source or a network does not have.

    Example:
        >>> check_options("rec", {"sise": "32"}, ["size", "channels"])
        Traceback (most recent call last):
        vicinal.errors.UserError: there is no rec option 'sise'. Did you mean 'size'? ...
    """
    names = list(known)
    for option in options:
        if option not in names:
            if not names:
                raise UserError(f"{name} has no options, got {option!r}. Remove it.")
            raise UserError(unknown(f"{name} option", option, names))


def choice(name: str, options: Mapping[str, str], known: Sequence[str]) -> str | None:
    """Return an option that has a few values, None if it is not given.

    Raises:
        UserError: if it has a different value.
    """
    if name in options and options[name] not in known:
        raise UserError(unknown(f"value of the option {name}", options[name], known))
    return options.get(name)
