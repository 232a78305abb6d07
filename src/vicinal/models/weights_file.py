"""Initial weights of a network from a local file, or from the weights of a library."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vicinal.errors import UserError
from vicinal.import_path import one_line
from vicinal.models.heads import head_modules, head_names
from vicinal.models.hugging_face import HuggingFace

_NESTED = ("state_dict", "model_state_dict", "model", "state_dict_ema", "weights")
"""The entries in which training programs store weights next to other things."""

_OURS = "/weights/"
"""The prefix of weights in a checkpoint of vicinal."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights in a safetensors file, or in a file of ``torch.save``; no code is run.

    Checkpoints of vicinal and of other programs are recognized, which store weights next to other
    values, and so is the prefix ``module.`` that ``DataParallel`` adds.

    Args:
        path: a file; one with the suffix ``.safetensors`` is in that format.

    Raises:
        UserError: if the file cannot be read, holds something other than tensors, or holds
            objects that could run code.
    """
    found: Any
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"weights={path}: there is no such file. Check the path.") from error
    except Exception as error:  # a damaged file raises errors of many types
        pickled = "weights_only" in str(error).lower()
        reason = (
            "it holds Python objects, which could run code"
            if pickled
            else one_line(error).removesuffix(".")
        )
        raise UserError(
            f"weights={path}: expected a safetensors file or a state_dict of torch.save, got "
            f"something else ({reason}). Save network.state_dict() with safetensors or torch.save."
        ) from error
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if isinstance(found, Mapping) and any(str(name).startswith(_OURS) for name in found):
        found = {k.removeprefix(_OURS): v for k, v in found.items() if k.startswith(_OURS)}
    if not (isinstance(found, Mapping) and found) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise UserError(
            f"weights={path}: expected a mapping of names to tensors, got something else. Save "
            "network.state_dict()."
        )
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    return dict(found)


def load_initial_weights(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    origin: str,
    log: Callable[[str], None] = lambda _sentence: None,
) -> None:
    """Load weights into a network, except those of a head for another number of classes.

    Args:
        network: the network, with initial weights.
        weights: tensors by the names of the network's ``state_dict``.
        origin: where they come from, for messages.
        log: is called with a sentence on what was loaded.

    Raises:
        UserError: if tensors of the backbone are missing, unexpected, or of another shape.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3))
        >>> trained = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 10)).state_dict()
        >>> load_initial_weights(network, trained, origin="a.pt", log=print)
        initial weights: 2 tensors from a.pt; the head starts from random weights (1.weight of \
shape (10, 4) in the weights, (3, 4) in the network)
    """
    own, head = network.state_dict(), head_names(network)
    prefix = network.prefix if isinstance(network, HuggingFace) else ""
    if prefix and not weights.keys() & own.keys():
        weights = {f"{prefix}{name}": value for name, value in weights.items()}
    # Files of old versions of PyTorch lack these counters.
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    wrong = sorted((needed - weights.keys()) | (weights.keys() - own.keys()))
    wrong += sorted(k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape)
    of_head = [k for k in wrong if k in head or (k not in own and _is_in_head(k, network))]
    if others := [name for name in wrong if name not in of_head]:
        raise UserError(
            f"{origin}: these are not weights of {type(network).__name__}: "
            f"{_compared(others[0], own, weights)}"
            f"{f', and {len(others) - 1} more tensors' if len(others) > 1 else ''}. Choose the "
            "network and the size of inputs that the weights were trained with."
        )
    left = {name.rpartition(".")[0] for name in of_head}  # modules, with all of their tensors
    chosen = {k: v for k, v in weights.items() if k in own and k.rpartition(".")[0] not in left}
    own.update(chosen)  # keeps the versions that some layers ask for
    network.load_state_dict(own)
    text = f"initial weights: {len(chosen)} tensors from {origin}"
    if head - chosen.keys() and of_head:
        why = ([name for name in of_head if name in own] or of_head)[-1]
        text += f"; the head starts from random weights ({_compared(why, own, weights)})"
    elif of_head:
        text += f"; {of_head[-1]} is not used"
    log(text)


def _is_in_head(name: str, network: nn.Module) -> bool:
    """Return whether a tensor that the network lacks belongs to a head, such as a deeper one."""
    if isinstance(network, HuggingFace):  # weights may have the head of another task
        return not name.startswith(network.backbone_prefix)
    return any(name.startswith(f"{module}.") for module in head_modules(network))


def _compared(name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    if name not in weights:
        return f"{name} is missing in the weights"
    shape = tuple(weights[name].shape)
    if name not in own:
        return f"{name} of shape {shape} is only in the weights"
    return f"{name} of shape {shape} in the weights, {tuple(own[name].shape)} in the network"
