"""The origin of a trial: fingerprints of its data and network, and versions of packages.

Every result, state and checkpoint records its origin. Trials are compared, and a trial resumes,
only if their origins agree.
"""

import ast
import hashlib
import json
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from vicinal.data import DataSet, Split
from vicinal.data.description import is_constant
from vicinal.errors import UserError
from vicinal.models import head_names, imported_module, parse_name
from vicinal.training.environment import versions
from vicinal.training.run_folder import differences
from vicinal.training.task import constant_outputs, task_of

Origin = Mapping[str, Any]
"""An origin as plain values for JSON, in the form that ``checked_origin`` expects."""

SAMPLE = 256
"""How many evenly spaced examples are hashed of a split whose inputs stay in files."""

_KNOWN: "weakref.WeakKeyDictionary[DataSet, dict[str, Any]]" = weakref.WeakKeyDictionary()
_IMPORTED: "weakref.WeakKeyDictionary[ModuleType, tuple[Any, dict[str, str]]]"
_IMPORTED = weakref.WeakKeyDictionary()


class _Facts(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class _Split(_Facts):
    examples: pydantic.PositiveInt
    of_each_class: list[pydantic.NonNegativeInt]
    skipped: pydantic.NonNegativeInt
    sha256: str


class _Data(_Facts):
    task: str
    outputs: pydantic.PositiveInt
    predictor: dict[str, list[float]]
    classes: list[str]
    train: _Split
    test: _Split
    validation: _Split | None = None
    preparation: str
    constant: bool
    grouped: bool = False
    notes: list[tuple[str, bool]]

    @pydantic.model_validator(mode="after")
    def _count_each_class(self) -> "_Data":
        for split in (self.train, self.test, self.validation):
            if split is not None and len(split.of_each_class) != len(self.classes):
                raise ValueError("expected a count for each class in each split")
        return self


class _Network(_Facts):
    name: str
    parameters: pydantic.NonNegativeInt
    tensors: str
    pretrained: str | None = None
    source: dict[str, str]


class _Origin(_Facts):
    data: _Data
    network: _Network
    policies: dict[str, str] = {}
    versions: dict[str, str]


def checked_origin(origin: dict[str, Any]) -> dict[str, Any]:
    """Return an origin from a file if it is valid, else raise a ``ValidationError``."""
    _Origin.model_validate(origin)
    return origin


def origin_of(
    data: DataSet,
    network: nn.Module,
    name: str,
    policies: Iterable[str] = (),
    task: str = "auto",
) -> dict[str, Any]:
    """Return the origin of a trial.

    Args:
        data: the data set, as it was loaded.
        network: the network, as it was built.
        name: the name of the network in the recipe.
        policies: the paths of the user's policies in the recipe, ``module:name``. The source files
            of those that are imported are hashed.
        task: the recipe's ``task``.

    Example:
        >>> from vicinal.data import load
        >>> from vicinal.models import build
        >>> network = build("mlp", shape=(4,), classes=3)
        >>> origin = origin_of(load("iris"), network, "mlp")
        >>> origin["data"]["test"]["of_each_class"], origin["network"]["parameters"]
        ([10, 10, 10], 17539)
    """
    return {
        "data": data_facts(data, task),
        "network": network_facts(network, name),
        "policies": {file: sha for path in policies for file, sha in source_hashes(path).items()},
        "versions": _deciding_versions(name),
    }


def data_facts(data: DataSet, task: str = "auto") -> dict[str, Any]:
    """Return the task, counts, classes and hashes of a data set, as plain values for JSON.

    Labels of a multi-label task that have no names are numbered. ``predictor`` has the outputs of
    the best constant predictor, which ignores its inputs.

    The hash of a split covers its targets and inputs as they were read. For inputs that stay in
    files it covers at most ``SAMPLE`` evenly spaced inputs, and the ``identity`` of every example
    (such as its name and size), where the source has one. Notes are recorded, but not compared.

    Example:
        >>> from vicinal.data import load
        >>> facts = data_facts(load("iris"))
        >>> facts["train"]["examples"], facts["train"]["skipped"], len(facts["train"]["sha256"])
        (120, 0, 64)
    """
    if data not in _KNOWN:
        found = task_of(data, task)
        classes = list(data.classes)
        if found.name == "multi-label":
            classes = classes or [f"label {k}" for k in range(found.outputs)]
        _KNOWN[data] = {
            "task": found.name,
            "outputs": found.outputs,
            "predictor": constant_outputs(found, data.train.targets),
            "classes": classes,
            **{name: _split_facts(split, len(classes)) for name, split in data.splits.items()},
            "preparation": _sha256(json.dumps(data.preparation, sort_keys=True).encode()),
            "constant": is_constant(data.train),
            "grouped": is_grouped(data.test),
            "notes": [[note.text, note.doubtful] for note in data.notes],
        }
    return _KNOWN[data]


def network_facts(network: nn.Module, name: str) -> dict[str, Any]:
    """Return the number of parameters and hashes of a network, as plain values for JSON.

    ``tensors`` is a hash of the names, shapes and dtypes of parameters and buffers, ``pretrained``
    one of the pretrained weights of the backbone, and ``source`` has the ``source_hashes`` of the
    network.
    """
    tensors = [f"{k} {tuple(v.shape)} {v.dtype}" for k, v in network.state_dict().items()]
    parsed, pretrained = parse_name(name), None
    if parsed.pretrained or parsed.weights_file is not None:
        head, digest = head_names(network), hashlib.sha256()
        for key, value in network.state_dict().items():
            if key not in head:
                _add(digest, value)
        pretrained = digest.hexdigest()
    return {
        "name": name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "tensors": _sha256("\n".join(tensors).encode()),
        "pretrained": pretrained,
        "source": source_hashes(name),
    }


def source_hashes(name: str) -> dict[str, str]:
    """Return a hash of each source file of an imported ``module:name``; {} for other networks.

    These are the file of its module and the files that it imports, even inside functions: within
    its top-level package, or for a module outside of packages, within its folder unless that is
    ``site-packages``. No code is run to find them.
    """
    found = sys.modules.get(imported_module(name) or "")
    if found is None:
        return {}
    known = _IMPORTED.get(found)
    # The file may change later, but the code that runs does not, unless the module is reloaded.
    if known is None or known[0] is not found.__spec__:
        known = _IMPORTED[found] = found.__spec__, _source_hashes(found)
    return known[1]


def check_unchanged(names: Iterable[str]) -> None:
    """Raise if a file of an imported ``module:name`` has changed since it was first hashed.

    Python would run the code that it imported before.

    Raises:
        UserError: if a file has changed.
    """
    for name in names:
        found = sys.modules.get(imported_module(name) or "")
        if found is not None and found in _IMPORTED:
            before, now = source_hashes(name), _source_hashes(found)
            if changed := [file for file in before if now.get(file) != before[file]]:
                raise UserError(
                    f"{name}: {', '.join(changed)} has changed since this process imported it, so "
                    "the old code would run. Restart Python."
                )


def _source_hashes(imported: ModuleType) -> dict[str, str]:
    module, file = imported.__name__, getattr(imported, "__file__", None)
    if file is None:
        return {}
    start = Path(file).resolve()
    top, *inner = module.split(".")
    package = bool(inner) or start.name == "__init__.py"
    root = start.parents[len(inner) + (start.name == "__init__.py")]
    inside = root / top if package else root
    found = {start, *_files_of_import(root, module.split("."), inside)}
    alone = not package and root.name in ("site-packages", "dist-packages")
    left = [] if alone or start.suffix != ".py" else list(found)
    while left:
        path = left.pop()
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for base, names in _imports(tree, root, path.parent):
            near = _files_of_import(base, names, inside)
            left += near - found
            found |= near
    return {path.relative_to(root).as_posix(): _sha256(path.read_bytes()) for path in sorted(found)}


def _imports(tree: ast.AST, root: Path, folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each import of a module: the folder to search, and the parts of the dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((root, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder.joinpath(*[".."] * (node.level - 1)).resolve() if node.level else root
            module = node.module.split(".") if node.module else []
            yield from ((base, [*module, alias.name]) for alias in node.names)


def _files_of_import(base: Path, names: list[str], inside: Path) -> set[Path]:
    """Return the files in a folder that the import of a dotted name runs."""
    files = [base / "__init__.py"]
    for k in range(1, len(names) + 1):
        path = base.joinpath(*names[:k])
        files += [path.with_name(f"{path.name}.py"), path / "__init__.py"]
    return {file for file in files if file.is_file() and file.is_relative_to(inside)}


def origin_differences(old: Origin, new: Origin) -> str:
    """Return the differences between two origins as one clause, or ``""``.

    Args:
        old: the origin of a trained trial; {} if it recorded none.
        new: the origin of a trial to compare with it, or of one that is about to start.

    Example:
        >>> origin_differences({"versions": {"torch": "2.6"}}, {"versions": {"torch": "2.7"}})
        "versions.torch was '2.6' and is '2.7'"
    """
    if not old or not new:
        return "" if old == new else "only one of them recorded its data and network"
    # Trials may import different policies, since arms can be added to a study.
    files = old.get("policies", {}).keys() ^ new.get("policies", {}).keys()
    return "; ".join(differences(old, new, {"data.notes", *(f"policies.{one}" for one in files)}))


def check_origin(old: Origin, new: Origin, where: Path) -> None:
    """Raise a ``UserError`` with everything that differs between two origins.

    Args:
        old: what was recorded.
        new: what would be used now.
        where: the folder or file that recorded it, for the error.
    """
    if changed := origin_differences(old, new):
        raise UserError(
            f"{where} was trained with different data, code or versions ({changed}). Restore them "
            "to continue, or start again in another folder with --out."
        )


def _split_facts(split: Split, classes: int) -> dict[str, Any]:
    if not classes:
        counts = split.targets.new_empty(0)
    elif split.targets.is_floating_point():  # labels, of which each example may have several
        counts = split.targets.sum(0)
    else:
        counts = split.targets.bincount(minlength=classes)
    digest = hashlib.sha256()
    _add(digest, split.targets)
    digest.update(repr(tuple(split.inputs.shape)).encode())
    if isinstance(split.inputs, Tensor):
        _add(digest, split.inputs)
    else:
        if identity := getattr(split.inputs, "identity", None):
            for row in range(len(split)):
                digest.update(f"{identity(row)}\n".encode("utf-8", "surrogateescape"))
        read = split.read(range(0, len(split), max(1, -(-len(split) // SAMPLE))))
        digest.update(read.kept.tobytes())
        _add(digest, read.inputs)
    return {
        "examples": len(split),
        "of_each_class": counts.long().tolist(),
        "skipped": len(split.skipped),
        "sha256": digest.hexdigest(),
    }


def is_grouped(split: Split) -> bool:
    """Return whether several examples of a split belong to one group."""
    return split.groups is not None and len(split.groups.unique()) < len(split)


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    # The only dimension of a single value may have any stride, which a view as bytes rejects.
    whole = tensor.detach().cpu().contiguous()
    digest.update(whole.as_strided((whole.numel(),), (1,)).view(torch.uint8).numpy().data)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _deciding_versions(name: str) -> dict[str, str]:
    """Return the versions of the packages that results depend on."""
    deciding = {k: v for k, v in versions().items() if k != "python"}
    library = parse_name(name).library
    if library not in ("", "import"):
        package = "transformers" if library == "hf" else library
        deciding[package] = metadata.version(package)
    return deciding
