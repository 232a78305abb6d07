"""How raw images and recordings become inputs, as plain values, and how to do it again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vicinal.data.dataset import DataSet
from vicinal.data.source_spec import Spec
from vicinal.errors import UserError

TABLES = ("table", "iris", "abalone", "arcene", "arrhythmia", "htru2", "phishing")
"""Sources that prepare columns, and keep their own preparation."""

_IMAGE = ("size", "channels", "exif", "alpha")
_OPTIONS = {
    **dict.fromkeys(("folder", "rec", "hf", "torchvision", "import"), _IMAGE),
    "commands": ("features", "rate", "seconds"),
}
"""The options of each source that shape its inputs. Other sources have none."""

_KINDS = {"image": "images", "sound": "recordings", "values": "arrays"}


def with_preparation(spec: Spec, preparation: Mapping[str, Any] | None) -> Spec:
    """Add the options of an earlier preparation to a data set's name.

    Args:
        spec: of the data set.
        preparation: of the training, or None.

    Raises:
        UserError: if the name has another value for one of them, or is that of a table and the
            preparation is none of a table.

    Example:
        >>> with_preparation(Spec("commands", "words", {}), {"kind": "sound", "rate": 8000}).options
        {'rate': '8000'}
    """
    if spec.name in TABLES and preparation and preparation.get("kind") in _KINDS:
        raise _unfit(spec, "rows of a table", preparation)
    options = dict(spec.options)
    if not preparation or "raw" in options:  # raw pixels have the shape that the option says
        return spec
    for name in _OPTIONS.get(spec.name, ()):
        known = preparation.get(name)
        if known is None:
            continue
        if not _equal(options.setdefault(name, str(known)), known):
            raise UserError(
                f"{_named(spec)}: {name}={options[name]} contradicts the training, which "
                f"had {name}={known}; leave {name} out to prepare the data as in the training"
            )
    return spec._replace(options=options)


def prepared(data: DataSet, spec: Spec, preparation: Mapping[str, Any] | None) -> DataSet:
    """Return the data set with its preparation, which is the earlier one if there is any.

    Args:
        data: as its source loaded it, with the options of ``with_preparation``.
        spec: which named it.
        preparation: of the training, or None.

    Raises:
        UserError: if the inputs are not what this preparation makes.
    """
    if spec.name in TABLES:
        return data
    made = dict(data.preparation) or _of_inputs(data, spec)
    if not preparation:
        return replace(data, preparation=made)
    kind, known = made["kind"], preparation.get("kind")
    if kind != known:
        raise _unfit(spec, _KINDS[kind], preparation)
    for name in ("white", "shape"):
        if name in made and made[name] != preparation.get(name):
            raise UserError(
                f"{_named(spec)} has {_KINDS[kind]} with {name} {_written(made[name])}, "
                f"and the network was trained on {name} {_written(preparation.get(name))}"
                + (
                    "; try size=N"
                    if name == "shape" and "size" in _OPTIONS.get(spec.name, ())
                    else ""
                )
            )
    if any(made.get(k) != preparation.get(k) for k in _OPTIONS["commands"] if kind == "sound"):
        raise _unfit(spec, "recordings prepared in another way", preparation)
    return replace(data, preparation=dict(preparation))


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


def _equal(word: str, known: object) -> bool:
    try:
        return float(word) == float(str(known))
    except ValueError:
        return word == str(known)


def _named(spec: Spec) -> str:
    return f"{spec.name}:{spec.where}" if spec.where else spec.name


def _written(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _unfit(spec: Spec, found: str, preparation: Mapping[str, Any]) -> UserError:
    known = _KINDS.get(str(preparation.get("kind")), "rows of a table")
    return UserError(
        f"{_named(spec)} has {found}, and the network was trained on {known}; choose "
        "data of the same kind"
    )
