"""Trees of tensors and plain values in safetensors files, which run no code when loaded."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from vicinal.errors import UserError
from vicinal.files import WEIGHTS, write_whole

_KEY = "vicinal"
"""The entry of the file's metadata that holds the tree without its tensors, as JSON."""


def write_tree(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a tree of mappings, lists, plain values and tensors as one safetensors file.

    Args:
        path: the file, which is replaced as a whole.
        tree: its keys are strings or integers. The memory formats contiguous and channels_last
            are kept.

    Raises:
        UserError: if it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "tree.safetensors"
        >>> write_tree(path, {"step": 3, "weights": [torch.ones(2)]})
        >>> read_tree(path)
        {'step': 3, 'weights': [tensor([1., 1.])]}
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _extract(tree, "", tensors)
    skeleton["crc32"] = _checksum(skeleton, tensors)
    write_whole(path, save(tensors, {_KEY: json.dumps(skeleton)}))


def read_tree(path: Path) -> dict[str, Any]:
    """Read a file that ``write_tree`` wrote.

    Raises:
        UserError: if the file does not exist, is damaged, or was not written by ``write_tree``.
    """
    if path.is_dir():
        raise UserError(f"{path}: expected a file, got a folder. Try {path / WEIGHTS}.")
    try:
        with safe_open(path, framework="pt") as file:
            skeleton = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if skeleton.pop("crc32") != _checksum(skeleton, tensors):
            raise ValueError("its checksum is wrong")
        return dict(_restore(skeleton, tensors))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: there is no such checkpoint or folder of a study. Check the path."
        ) from error
    except Exception as error:  # a damaged file raises errors of many types
        raise UserError(
            f"{path}: expected an undamaged checkpoint of vicinal, got something else ({error}). "
            "Pickles (.pt, .pth), which can hold code, and exported networks are not read."
        ) from error


def _extract(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a tree as JSON values, and move its tensors to ``tensors``, under their paths."""
    if isinstance(value, Tensor):
        value = value.detach()
        channels_last = (
            value.dim() == 4
            and not value.is_contiguous()
            and value.is_contiguous(memory_format=torch.channels_last)
        )
        # safetensors does not accept tensors that share memory.
        tensors[name] = value.cpu().contiguous().clone()
        return {"tensor": name, "channels_last": channels_last}
    if isinstance(value, Mapping):
        # Keys of JSON are strings, but optimizers number their parameters: use a list of pairs.
        pairs = [[key, _extract(one, f"{name}/{key}", tensors)] for key, one in value.items()]
        return {"mapping": pairs}
    if isinstance(value, list | tuple):
        items = [_extract(one, f"{name}/{k}", tensors) for k, one in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a checkpoint cannot hold a {type(value).__name__}")


def _checksum(skeleton: Any, tensors: Mapping[str, Tensor]) -> int:
    crc32 = zlib.crc32(json.dumps(skeleton).encode())
    for name in sorted(tensors):
        crc32 = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, crc32)
    return crc32


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        last = torch.channels_last if value["channels_last"] else torch.contiguous_format
        return tensors[value["tensor"]].to(memory_format=last)
    if "mapping" in value:
        return {key: _restore(one, tensors) for key, one in value["mapping"]}
    items = [_restore(one, tensors) for one in value["tuple" if "tuple" in value else "list"]]
    return tuple(items) if "tuple" in value else items
