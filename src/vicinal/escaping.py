"""Foreign text, such as class names, titles and paths, made safe to show."""

import re
from collections.abc import Callable, Mapping
from typing import Any

_OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)

_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?", re.ASCII)


def visible(text: str, *, keep_lines: bool = False) -> str:
    r"""Escape the characters that a terminal, browser or editor would obey instead of showing.

    Control characters, marks that change the direction of text, and the bytes of a file name that
    is not UTF-8 become Python's escapes.

    Args:
        text: any text.
        keep_lines: whether to keep line feeds, for text of several lines.

    Example:
        >>> print(visible("red \x1b[31m, reversed \u202e, two\nlines, not UTF-8 \udcff"))
        red \x1b[31m, reversed \u202e, two\nlines, not UTF-8 \xff
    """

    def escaped(found: re.Match[str]) -> str:
        character = found[0]
        if "\udc80" <= character <= "\udcff":  # how Python reads a byte that is not UTF-8
            return f"\\x{ord(character) - 0xDC00:02x}"
        return character if keep_lines and character == "\n" else ascii(character)[1:-1]

    return _OBEYED.sub(escaped, text)


def spreadsheet_cell(text: str) -> str:
    """Return text for a cell of a CSV file; ``visible``, and no formula for a spreadsheet.

    Text that a spreadsheet would take for a formula gets a leading apostrophe; numbers do not.

    Example:
        >>> spreadsheet_cell("=1+1"), spreadsheet_cell("cat"), spreadsheet_cell("-1")
        ("'=1+1", 'cat', '-1')
    """
    text = visible(text)
    formula = text.lstrip()[:1] in set("=+-@＝＋－＠") and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def shortened(name: str, most: int = 16) -> str:
    """Shorten a name to as many characters as fit below a small image, or to ``most``.

    Example:
        >>> shortened("American Staffordshire terrier")
        'American Staffo…'
    """
    return name if len(name) <= most else f"{name[: most - 1]}…"


def is_utf8(text: str) -> bool:
    r"""Return whether text can be written as UTF-8, unlike file names with other bytes.

    Example:
        >>> is_utf8("caf\u00e9"), is_utf8("caf\udce9")
        (True, False)
    """
    return text == text.encode(errors="replace").decode()


def with_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return nested mappings and lists with a function applied to every string, except to keys.

    Example:
        >>> with_text({"rows": [{"arm": "erm", "n": 3}]}, str.upper)
        {'rows': [{'arm': 'ERM', 'n': 3}]}
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: with_text(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [with_text(one, change) for one in value]
    return value
