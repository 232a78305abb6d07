"""Comparing what trials were made from: data, network, and versions of packages.

Trials can be compared, and a trial can resume, only where these agree. ``fingerprint.py`` works
them out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from vicinal.errors import UserError

Origin = Mapping[str, Any]
"""Plain values for JSON, in the form of ``Form``."""


class _Facts(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class _Split(_Facts):
    examples: pydantic.NonNegativeInt
    of_each_class: list[pydantic.NonNegativeInt]
    skipped: pydantic.NonNegativeInt
    sha256: str


class _Data(_Facts):
    classes: list[str]
    train: _Split
    test: _Split
    validation: _Split | None = None
    preparation: str
    constant: bool
    notes: list[tuple[str, bool]]

    @pydantic.model_validator(mode="after")
    def _count_each_class(self) -> "_Data":
        for split in (self.train, self.test, self.validation):
            if split is not None and len(split.of_each_class) != len(self.classes):
                raise ValueError("each split should count each class")
        if not self.test.examples or not self.train.examples:
            raise ValueError("the train and test splits should have examples")
        return self


class _Network(_Facts):
    name: str
    parameters: pydantic.NonNegativeInt
    tensors: str
    source: dict[str, str]


class Form(_Facts):
    """The form of an origin that was read from a file, to be checked before it is used."""

    data: _Data
    network: _Network
    versions: dict[str, str]


_SPLITS = ("train", "validation", "test")
_WORDS = {
    "preparation": "the preparation of the inputs is another",
    "tensors": "its parameters or buffers have other names, shapes or dtypes",
}


def origin_differs(there: Origin, here: Origin) -> str:
    """Say in words what differs between two origins, or ``""``.

    Args:
        there: of a trial that was trained; {} if it recorded none.
        here: of a trial to be compared with it, or of one about to be trained.

    Example:
        >>> origin_differs({"versions": {"torch": "2.6"}}, {"versions": {"torch": "2.7"}})
        'versions: torch was 2.6 and is 2.7'
    """
    if not there or not here:
        return "" if there == here else "only one of them recorded its data and network"
    phrases = []
    for kind in ("data", "network", "versions"):
        old, new = there.get(kind, {}), here.get(kind, {})
        for name in sorted((old.keys() | new.keys()) - {"notes"}):
            if old.get(name) != new.get(name):
                phrases.append(f"{kind}: {_phrase(name, old.get(name), new.get(name))}")
    return "; ".join(phrases)


def check_origin(there: Origin, here: Origin, where: Path) -> None:
    """Refuse to continue with other data, another network or other versions.

    Args:
        there: what was recorded.
        here: what would be trained with now.
        where: the folder or file that recorded it, for the error.

    Raises:
        UserError: if they differ; everything that differs is named.
    """
    if differing := origin_differs(there, here):
        raise UserError(
            f"{where} was trained with something else than there is now ({differing}); bring it "
            "back to continue, or start anew in another folder with --out"
        )


def _phrase(name: str, old: Any, new: Any) -> str:
    if name in _WORDS:
        return _WORDS[name]
    if name in _SPLITS:
        return _split_phrase(name, old, new)
    if name == "classes":
        old, new = old or (), new or ()
        gone, added = ([x for x in a if x not in b][:5] for a, b in ((old, new), (new, old)))
        words = [f"without {', '.join(gone)}"] if gone else []
        words += [f"with {', '.join(added)}"] if added else []
        return f"the classes are others ({' and '.join(words) or 'in another order'})"
    if name == "source":
        old, new = old or {}, new or {}
        return f"{', '.join(k for k in sorted({*old, *new}) if old.get(k) != new.get(k))} changed"
    return f"{name} was {old} and is {new}"


def _split_phrase(name: str, old: Any, new: Any) -> str:
    if not old or not new:
        return f"the {name} split is only {'there' if old else 'here'}"
    before, after = (_split_words(one) for one in (old, new))
    if before == after:
        return f"the {name} split has the same counts and other contents"
    return f"the {name} split had {before}, and has {after}"


def _split_words(split: Mapping[str, Any]) -> str:
    counts = split.get("of_each_class", [])
    each = f" ({', '.join(map(str, counts))} of each class)" if 0 < len(counts) <= 10 else ""
    return f"{split['examples']} examples{each}"
