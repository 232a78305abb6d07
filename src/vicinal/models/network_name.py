"""The string that names a network: ``NAME?option=value&option=value``."""

import math
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from vicinal.errors import UserError
from vicinal.options import check_options, choice, split_options

EXTERNAL_NAMES = "timm:NAME, torchvision:NAME, hf:PATH_OR_NAME and package.module:callable"
"""The names of external networks, for error messages."""

WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
"""Suffixes of files of weights, which distinguish them from names of torchvision's weights."""

_EXAMPLES = {"timm": "resnet18", "torchvision": "resnet18", "hf": "distilbert-base-uncased"}
_COMMON = ("weights", "mean", "std")


class NetworkName(NamedTuple):
    """A parsed name of a network.

    Args:
        library: ``"timm"``, ``"torchvision"`` or ``"hf"``; ``"import"`` for a callable; ``""`` for
            a network of vicinal.
        where: the name within the library, the import path, or the name of a network of vicinal.
        options: the options by name.
        text: the whole name, for messages.
    """

    library: str
    where: str
    options: dict[str, str]
    text: str

    @property
    def weights_file(self) -> Path | None:
        """The file that the initial weights come from, if the name has one."""
        value = self.options.get("weights")
        if value is None or (self.library == "torchvision" and not _is_file(value)):
            return None
        path = Path(value).expanduser()
        return path if path.exists() else Path(unquote(value)).expanduser()

    @property
    def pretrained(self) -> bool:
        """Whether the initial weights come from the library itself."""
        if self.weights_file is not None:
            return False
        if self.library == "torchvision":
            return "weights" in self.options
        # A name on Hugging Face's hub is that of weights, in timm that of an architecture.
        default = "true" if self.library == "hf" else "false"
        return self.options.get("pretrained", default) == "true"


def parse_name(name: str) -> NetworkName:
    """Parse the name of a network, without importing anything.

    Raises:
        UserError: if an option is unknown or has another value than it may have, or if the name
            has a colon and is none of ``EXTERNAL_NAMES``.

    Example:
        >>> parsed = parse_name("timm:resnet18?pretrained=true")
        >>> parsed.library, parsed.where, parsed.pretrained
        ('timm', 'resnet18', True)
        >>> parse_name("timm:")
        Traceback (most recent call last):
        ...
        vicinal.errors.UserError: timm: lacks the name of a network. Try timm:resnet18.
    """
    head, options = split_options(name)
    library, colon, where = head.partition(":")
    if not colon:
        library, where = "", head
    elif library not in _EXAMPLES:
        words = (*library.split("."), *where.split("."))
        if not all(word.isidentifier() for word in words):
            raise UserError(f"network {name!r}: expected a name of the form {EXTERNAL_NAMES}.")
        library, where = "import", head
    elif not where.strip():
        example = f"{library}:{_EXAMPLES[library]}"
        raise UserError(f"{name} lacks the name of a network. Try {example}.")
    known = ("pretrained", *_COMMON) if library in ("timm", "hf") else _COMMON
    check_options(head, options, known)
    if choice("pretrained", options, ("true", "false")) == "true" and "weights" in options:
        raise UserError(
            f"{name}: expected pretrained=true or weights=FILE, got both. Remove one of them."
        )
    if ("mean" in options) != ("std" in options):
        raise UserError(f"{name}: expected both mean and std, or neither. Add the other one.")
    for option in ("mean", "std"):
        _check_numbers(name, option, options.get(option, "1"))
    return NetworkName(library, where, options, name)


def _is_file(value: str) -> bool:
    return value.lower().endswith(WEIGHTS_SUFFIXES)


def _check_numbers(name: str, option: str, value: str) -> None:
    try:
        numbers = [float(word) for word in value.split(",")]
    except ValueError:
        numbers = [math.nan]
    lowest = 0 if option == "std" else -1e9
    if not all(lowest < number < 1e9 for number in numbers):
        raise UserError(
            f"{name}: expected numbers such as {option}=0.5 or {option}=0.485,0.456,0.406, one for "
            f"each channel and for pixels from 0 to 1, got {option}={value}."
        )
