"""Fingerprints of data and networks: counts, classes and hashes.

Recorded in every result, state and checkpoint, so that what was trained with something else is
noticed; see ``origin.py``.
"""

import ast
import hashlib
import json
import sys
import weakref
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vicinal.data import DataSet, Split
from vicinal.data.description import is_constant
from vicinal.models import imported_module
from vicinal.training.environment import versions

SAMPLE = 256
"""How many evenly spaced examples are hashed of a split whose inputs stay in files."""

_KNOWN: "weakref.WeakKeyDictionary[DataSet, dict[str, Any]]" = weakref.WeakKeyDictionary()


def origin_of(data: DataSet, network: nn.Module, name: str) -> dict[str, Any]:
    """Return what a trial is made from, as plain values for JSON.

    Args:
        data: as it was loaded.
        network: as it was built.
        name: of the network, as in a recipe.

    Example:
        >>> from vicinal.data import load
        >>> from vicinal.models import build
        >>> network = build("mlp", shape=(4,), classes=3)
        >>> origin = origin_of(load("iris"), network, "mlp")
        >>> origin["data"]["test"]["of_each_class"], origin["network"]["parameters"]
        ([10, 10, 10], 17539)
    """
    return {
        "data": data_facts(data),
        "network": network_facts(network, name),
        "versions": _deciding_versions(name),
    }


def data_facts(data: DataSet) -> dict[str, Any]:
    """Return the counts, classes and hashes of a data set, as plain values for JSON.

    The hash of a split covers its targets and inputs as they were read. Of inputs that stay in
    files it covers ``SAMPLE`` evenly spaced examples, and the name and size of each, where the
    source has an ``identity`` for them. Notes are listed, but not compared.

    Example:
        >>> from vicinal.data import load
        >>> facts = data_facts(load("iris"))
        >>> facts["train"]["examples"], facts["train"]["skipped"], len(facts["train"]["sha256"])
        (120, 0, 64)
    """
    if data not in _KNOWN:
        count = len(data.classes)
        _KNOWN[data] = {
            "classes": list(data.classes),
            **{name: _split_facts(part, count) for name, part in data.splits.items()},
            "preparation": _sha256(json.dumps(data.preparation, sort_keys=True).encode()),
            "constant": is_constant(data.train),
            "notes": [[note.text, note.doubtful] for note in data.notes],
        }
    return _KNOWN[data]


def network_facts(network: nn.Module, name: str) -> dict[str, Any]:
    """Return the number of parameters and hashes of a network, as plain values for JSON.

    ``tensors`` is a hash of the names, shapes and dtypes of parameters and buffers. ``source`` has
    a hash of each file that a network of the user's is written in: its module, and what that
    imports from the same folder.

    Example:
        >>> network_facts(nn.Linear(2, 1), "mlp")["parameters"]
        3
    """
    tensors = [f"{k} {tuple(v.shape)} {v.dtype}" for k, v in network.state_dict().items()]
    return {
        "name": name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "tensors": _sha256("\n".join(tensors).encode()),
        "source": source_hashes(name),
    }


def source_hashes(name: str) -> dict[str, str]:
    """Return a hash of each file of a network ``module:callable`` that was imported; {} for others.

    Example:
        >>> source_hashes("small-cnn")
        {}
    """
    module = imported_module(name)
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    if module is None or file is None:
        return {}
    files = _imports_nearby(Path(file).resolve(), module)
    return {path: _sha256(at.read_bytes()) for path, at in files.items()}


def _split_facts(part: Split, classes: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    _add(digest, part.targets)
    digest.update(repr(tuple(part.inputs.shape)).encode())
    if isinstance(part.inputs, Tensor):
        _add(digest, part.inputs)
    else:
        if identity := getattr(part.inputs, "identity", None):
            for row in range(len(part)):
                digest.update(f"{identity(row)}\n".encode("utf-8", "surrogateescape"))
        read = part.read(_evenly(len(part), SAMPLE))
        digest.update(read.kept.tobytes())
        _add(digest, read.inputs)
    return {
        "examples": len(part),
        "of_each_class": part.targets.bincount(minlength=classes).tolist() if classes else [],
        "skipped": len(part.skipped),
        "sha256": digest.hexdigest(),
    }


def _evenly(count: int, most: int) -> Sequence[int]:
    return range(0, count, max(1, -(-count // most)))


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _deciding_versions(name: str) -> dict[str, str]:
    """Return the versions of packages that decide a result; that of Python does not."""
    deciding = {k: v for k, v in versions().items() if k != "python"}
    library = name.partition(":")[0]
    if library in ("timm", "torchvision") and ":" in name:
        deciding[library] = metadata.version(library)
    return deciding


def _imports_nearby(start: Path, module: str) -> dict[str, Path]:
    """Return the file of a module and what it imports, directly or not, from next to it.

    That is from its top-level package, or for a module outside packages from its folder.

    Returns:
        The files by their paths relative to the folder that holds the top-level module.
    """
    top, *inner = module.split(".")
    package = bool(inner) or start.name == "__init__.py"
    root = start.parents[len(inner) + (start.name == "__init__.py")]
    alone = not package and root.name in ("site-packages", "dist-packages")
    found = {start, *(one for one in _candidates(root, module.split(".")) if one.is_file())}
    found = {one for one in found if one.is_relative_to(root / top) or one == start}
    left = list(found)
    while left and not alone and start.suffix == ".py":
        path = left.pop()
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for base, words in _imported_names(tree, root, path.parent):
            near = {one for one in _candidates(base, words) if one.is_file()}
            near = {one for one in near if one.is_relative_to(root / top if package else root)}
            left += near - found
            found |= near
    return {path.relative_to(root).as_posix(): path for path in sorted(found)}


def _imported_names(tree: ast.AST, root: Path, folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield what a module imports: the folder to look in, and the words of a dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((root, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder.joinpath(*[".."] * (node.level - 1)).resolve() if node.level else root
            module = node.module.split(".") if node.module else []
            yield from ((base, [*module, alias.name]) for alias in node.names)


def _candidates(base: Path, words: list[str]) -> list[Path]:
    """Return the files that are run by the import of a dotted name, if they exist."""
    paths = [base.joinpath(*words[:k]) for k in range(1, len(words) + 1)]
    return [
        one for path in paths for one in (path.with_name(f"{path.name}.py"), path / "__init__.py")
    ] + [base / "__init__.py"]
