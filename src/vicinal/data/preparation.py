"""The preparation of images and recordings as plain values, to repeat it on other data."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vicinal.data.catalog import SOURCES
from vicinal.data.dataset import DataSet
from vicinal.data.source_spec import Spec
from vicinal.errors import UserError

_IMAGE = ("size", "channels", "exif", "alpha")
_SOUND = ("features", "rate", "seconds")
_OPTIONS = {
    **dict.fromkeys(("folder", "rec", "hf", "torchvision", "import"), _IMAGE),
    "commands": _SOUND,
}
"""The options of each source that determine the shape of its inputs; other sources have none."""

_KINDS = {
    "image": "images",
    "sound": "recordings",
    "values": "arrays",
    "table": "rows of a table",
    "text": "texts",
}


def with_preparation(spec: Spec, preparation: Mapping[str, Any] | None) -> Spec:
    """Return a source with the options that a preparation determines, such as the size of images.

    Args:
        spec: the source.
        preparation: the one that was used for training, or None.

    Raises:
        UserError: if an option of the source contradicts the preparation, or if the source is a
            table and the preparation is not that of a table.

    Example:
        >>> with_preparation(Spec("commands", "words", {}), {"kind": "sound", "rate": 8000}).options
        {'rate': '8000'}
    """
    own = _own_kind(spec)
    if own and preparation and preparation.get("kind") in _KINDS.keys() - {own}:
        raise _other_kind(spec, _KINDS[own], preparation)
    options = dict(spec.options)
    if not preparation or "raw" in options:  # raw pixels have the shape in the option
        return spec
    for name in _OPTIONS.get(spec.name, ()):
        known = preparation.get(name)
        if known is not None and not _equal(options.setdefault(name, str(known)), known):
            raise UserError(
                f"{_named(spec)}: expected {name}={known}, as in training, got "
                f"{name}={options[name]}. Remove the option to prepare the data as in training."
            )
    return spec._replace(options=options)


def prepared(data: DataSet, spec: Spec, preparation: Mapping[str, Any] | None) -> DataSet:
    """Return the data set with the given preparation, or with its own if none is given.

    Args:
        data: as its source loaded it, with the options of ``with_preparation``.
        spec: the source.
        preparation: the one that was used for training, or None.

    Raises:
        UserError: if this preparation would make different inputs.
    """
    if _own_kind(spec):  # it made its own preparation
        return data
    made = dict(data.preparation) or _of_inputs(data, spec)
    if not preparation:
        return replace(data, preparation=made)
    kind = made["kind"]
    if kind != preparation.get("kind"):
        raise _other_kind(spec, _KINDS[kind], preparation)
    for name, words in (("white", "whose white pixels have the value"), ("shape", "of shape")):
        if name in made and made[name] != preparation.get(name):
            raise UserError(
                f"{_named(spec)}: expected {_KINDS[kind]} {words} "
                f"{_written(preparation.get(name))}, as in training, got {_written(made[name])}. "
                "Choose other data, or convert them."
            )
    if kind == "sound" and any(made.get(name) != preparation.get(name) for name in _SOUND):
        raise _other_kind(spec, "recordings prepared in a different way", preparation)
    return replace(data, preparation=dict(preparation))


def _own_kind(spec: Spec) -> str:
    """Return the kind of the preparation that a source makes itself, or ``""``."""
    folder = SOURCES[spec.name].function.partition(".")[0]
    return {"tables": "table", "texts": "text"}.get(folder, "")


def _of_inputs(data: DataSet, spec: Spec) -> dict[str, Any]:
    shape = list(data.train.inputs.shape[1:])
    if data.brightest is None:
        return {"kind": "values", "shape": shape}
    size = spec.options.get("size")
    return {
        "kind": "image",
        "size": None if size is None else int(size),
        "channels": shape[0],
        "shape": shape,
        "white": data.brightest,
        "exif": spec.options.get("exif", "apply"),
        "alpha": spec.options.get("alpha", "white"),
    }


def _equal(option: str, known: object) -> bool:
    try:
        return float(option) == float(str(known))
    except ValueError:
        return option == str(known)


def _named(spec: Spec) -> str:
    return f"{spec.name}:{spec.where}" if spec.where else spec.name


def _written(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _other_kind(spec: Spec, got: str, preparation: Mapping[str, Any]) -> UserError:
    known = _KINDS.get(str(preparation.get("kind")), "rows of a table")
    return UserError(f"{_named(spec)}: expected {known} as in training, got {got}")
