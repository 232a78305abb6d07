"""Foreign text, such as class names, titles and paths, made safe to show."""

import codecs
from collections.abc import Callable, Mapping
from typing import Any

_BIDIRECTIONAL = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_WRITTEN_OUT = (
    {k: _SHORT.get(chr(k), f"\\x{k:02x}") for k in (*range(32), *range(0x7F, 0xA0))}
    | {k: f"\\u{k:04x}" for k in (*_BIDIRECTIONAL, 0x2028, 0x2029, *range(0xD800, 0xE000))}
    # Python's surrogates for the bytes of a file name that is not UTF-8.
    | {0xDC00 + k: f"\\x{k:02x}" for k in range(0x80, 0x100)}
)
_KEEPS_LINES = {k: text for k, text in _WRITTEN_OUT.items() if k != ord("\n")}

_PLAIN = {"—": "-", "–": "-", "−": "-", "…": "...", "·": "*", "×": "x", "≥": ">=", "≤": "<="} | {
    quote: plain for quotes, plain in (("“”„", '"'), ("‘’", "'")) for quote in quotes
}


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
    return text.translate(_KEEPS_LINES if keep_lines else _WRITTEN_OUT)


def is_utf8(text: str) -> bool:
    r"""Say whether text can be written as UTF-8, unlike file names with other bytes.

    Example:
        >>> is_utf8("caf\u00e9"), is_utf8("caf\udce9")
        (True, False)
    """
    return text == text.encode(errors="replace").decode()


def with_text(value: Any, change: Callable[[str], str]) -> Any:
    """Apply a function to every text among plain values, except the keys of mappings.

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


def readable(error: UnicodeError) -> tuple[str, int]:
    r"""Replace characters that an encoding lacks: punctuation by ASCII, others by an escape.

    An error handler for ``codecs``, registered as ``"vicinal"``.

    Example:
        >>> "1.5 … 猫".encode("ascii", "vicinal")
        b'1.5 ... \\u732b'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    words = (_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in unknown)
    return "".join(words), error.end


codecs.register_error("vicinal", readable)
