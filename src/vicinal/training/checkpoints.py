"""Checkpoints: safetensors files, loading which runs no code."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vicinal.errors import UserError
from vicinal.escaping import is_utf8
from vicinal.files import WEIGHTS, write_whole
from vicinal.training.loop import Learner, TrainingProgress

_MOST_TEXT = 1 << 24
"""The most characters of a tree in a header; 10,000 tensors take about a million."""

_KEY = "vicinal"
"""Under which entry of the header of a file the tree without its tensors stands, as JSON."""


def write_tree(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a tree of mappings, lists, plain values and tensors as one safetensors file, whole.

    Args:
        path: of the file; it is there whole or as it was before.
        tree: whose keys are strings or integers. Strides are kept for contiguous and channels_last
            tensors.

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
    skeleton = _taken_apart(tree, "", tensors)
    skeleton["crc32"] = zlib.crc32(json.dumps(skeleton).encode())
    write_whole(path, save(tensors, {_KEY: json.dumps(skeleton)}))


def read_tree(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``write_tree`` wrote.

    Raises:
        UserError: if the file is not there, damaged, or something else; nothing of it is run.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the file in it, such as {path / WEIGHTS}")
    if not is_utf8(str(path)):
        raise UserError(
            f"{path} has a name that is not UTF-8, and safetensors cannot open it; rename the file "
            "or its folder"
        )
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            text = (file.metadata() or {})[_KEY]
            if len(text) > _MOST_TEXT:
                raise ValueError(f"its header describes a tree in {len(text):,} characters")
            skeleton = json.loads(text)
            if isinstance(skeleton, dict) and "crc32" in skeleton:  # not in those of old versions
                _check(skeleton.pop("crc32"), json.dumps(skeleton).encode(), "its header")
            tree = _put_together(skeleton, file)
            if not isinstance(tree, dict):
                raise TypeError(f"its header describes a {type(tree).__name__}, not a mapping")
            return tree
    except FileNotFoundError as error:
        raise UserError(
            f"there is no checkpoint {path}; vicinal train writes {WEIGHTS} into its folder"
        ) from error
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is no checkpoint of vicinal, or it is damaged ({error}); files that can "
            "hold code, such as pickles (.pt, .pth), are not read"
        ) from error


def write_weights(
    path: Path, model: nn.Module, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a network for use.

    Args:
        path: of the file.
        model: whose parameters and buffers are written.
        about: what somebody needs to know to build it and to prepare its inputs.
        tensors: what of this are tensors.

    Raises:
        UserError: if it cannot be written.
    """
    write_tree(path, {"about": about, "inputs": tensors, "weights": model.state_dict()})


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Give a network the weights of a checkpoint.

    Raises:
        UserError: if they are another network's: the first difference is named.
    """
    check_weights(model, weights, origin)
    model.load_state_dict(dict(weights))


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Compare the names and shapes of weights with those of a network.

    Raises:
        UserError: if they are another network's: the first difference is named.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        here = tuple(own[name].shape) if name in own else "nothing"
        there = tuple(weights[name].shape) if name in weights else "nothing"
        if here != there:
            raise UserError(
                f"{origin} is of another network than {type(model).__name__}: {name} is {there} "
                f"there, and {here} is wanted"
            )


def state_of(learner: Learner, reached: TrainingProgress, fabric: Fabric) -> dict[str, Any]:
    """Return all that decides how a run goes on.

    Where the weights are divided among processes, each of them has to call this.
    """
    model: Any
    optimizers: Any
    if _sharded(fabric):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        bare = [optimizer.optimizer for optimizer in learner.optimizers]
        model, optimizers = get_state_dict(learner.network, bare, options=whole)
    else:
        model = learner.model.state_dict()
        optimizers = [optimizer.optimizer.state_dict() for optimizer in learner.optimizers]
    return {
        "model": model,
        "optimizers": optimizers,
        "average": None if learner.average is None else learner.average.state_dict(),
        "scaler": fabric.strategy.precision.state_dict(),
        "reached": {
            "epoch": reached.epoch,
            "step": reached.step,
            "loss": reached.loss,
            "seen": reached.seen,
            "mean": repr(reached.mean),
        },
    }


def go_on_from(
    state: Mapping[str, Any], learner: Learner, fabric: Fabric, origin: str
) -> TrainingProgress:
    """Bring a run to where it was.

    Args:
        state: what ``state_of`` returned, maybe by way of a file.
        learner: made with the same settings.
        fabric: the engine.
        origin: the file, for errors.

    Raises:
        UserError: if the state is of another network or optimizer.
    """
    try:
        if _sharded(fabric):
            from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

            whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
            set_state_dict(
                learner.network,
                [optimizer.optimizer for optimizer in learner.optimizers],
                model_state_dict=state["model"],
                optim_state_dict=state["optimizers"],
                options=whole,
            )
        else:
            put_weights(learner.model, state["model"], origin)
            for optimizer, its in zip(learner.optimizers, state["optimizers"], strict=True):
                optimizer.optimizer.load_state_dict(its)
        if learner.average is not None:
            learner.average.load_state_dict(state["average"])
        fabric.strategy.precision.load_state_dict(state["scaler"])
        there = state["reached"]
        return TrainingProgress(
            there["epoch"], there["step"], there["loss"], there["seen"], float(there["mean"])
        )
    except UserError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{origin} does not fit these settings ({error}); train anew in another folder"
        ) from error


def _sharded(fabric: Fabric) -> bool:
    return "FSDP" in type(fabric.strategy).__name__


def _taken_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a tree for JSON, and put its tensors into ``tensors`` under their paths."""
    if isinstance(value, Tensor):
        value = value.detach()
        channels_last = (
            value.dim() == 4
            and not value.is_contiguous()
            and value.is_contiguous(memory_format=torch.channels_last)
        )
        # Tensors that share memory would be written once and read twice, or not at all.
        tensors[name] = value = value.cpu().contiguous().clone()
        crc32 = zlib.crc32(_bytes_of(value))
        return {"tensor": name, "channels_last": channels_last, "crc32": crc32}
    if isinstance(value, Mapping):
        # Keys of JSON are strings, and optimizers count their parameters: so a list of pairs.
        pairs = [[key, _taken_apart(one, f"{name}/{key}", tensors)] for key, one in value.items()]
        return {"mapping": pairs}
    if isinstance(value, list | tuple):
        items = [_taken_apart(one, f"{name}/{k}", tensors) for k, one in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint holds no {type(value).__name__}: {name}")


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _check(crc32: int, content: bytes | memoryview, what: str) -> None:
    if crc32 != zlib.crc32(content):
        raise ValueError(f"the checksum of {what} is wrong")


def _put_together(value: Any, file: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        tensor = file.get_tensor(value["tensor"])
        if "crc32" in value:
            _check(value["crc32"], _bytes_of(tensor.cpu()), value["tensor"])
        last = torch.channels_last if value["channels_last"] else torch.contiguous_format
        return tensor.to(memory_format=last)
    if "mapping" in value:
        return {key: _put_together(one, file) for key, one in value["mapping"]}
    items = [_put_together(one, file) for one in value["tuple" if "tuple" in value else "list"]]
    return tuple(items) if "tuple" in value else items
