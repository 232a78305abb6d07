"""Build networks of timm, of torchvision, and of the user's own modules."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from vicinal.errors import UserError, unknown
from vicinal.import_path import import_object, imported, one_line
from vicinal.models.libraries import unavailable
from vicinal.models.network_name import WEIGHTS_SUFFIXES, NetworkName, parse_name
from vicinal.models.weights_file import load_initial_weights

_AUXILIARY = ("googlenet", "inception_v3")
"""Networks of torchvision that return auxiliary logits in training mode by default."""

_OLD_NAME = r"(denselayer\d+\.(?:norm|relu|conv))\.([12])(?=\.)"
"""In the files of DenseNets: norm.1 stands for norm1."""


def imported_module(name: str) -> str | None:
    """Return the user's module that defines a network, or None.

    Args:
        name: as for ``build``.

    Example:
        >>> imported_module("my.networks:wide")
        'my.networks'
        >>> imported_module("timm:resnet18") is None
        True
    """
    parsed = parse_name(name)
    return parsed.where.partition(":")[0] if parsed.library == "import" else None


def build_external(
    name: NetworkName,
    *,
    shape: tuple[int, ...],
    classes: int,
    pretrained: bool,
    log: Callable[[str], None] = lambda _sentence: None,
) -> nn.Module:
    """Build a network of timm or torchvision, or of the user; only its library is imported.

    See ``vicinal.models.build``. Weights are loaded if ``pretrained`` and the name ask for them.
    """
    if name.library == "import":
        function = import_object(name.where)
        network = _built(name.where, lambda: function(shape, classes))
        _materialize(network, name.where, shape)
        return network
    if len(shape) != 3:
        raise UserError(
            f"{name.text} expects images of shape (channels, height, width), got examples of shape "
            f"{shape}. Try mlp."
        )
    make = _of_timm if name.library == "timm" else _of_torchvision
    return make(name, shape, classes, pretrained and name.pretrained, log)


def _materialize(network: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Run a network with lazy modules once, which then have their parameters."""
    if not _is_lazy(network):
        return
    reason = "some of them did not run"
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, *shape))
    except Exception as error:  # of the network
        reason = one_line(error)
    if _is_lazy(network):
        raise UserError(
            f"model.name: {name} has lazy modules, which a forward pass of zeros of shape "
            f"{(2, *shape)} in eval mode did not initialize ({reason}). Give them their sizes."
        )
    network.train()


def _is_lazy(network: nn.Module) -> bool:
    state = (*network.parameters(), *network.buffers())
    return any(isinstance(one, UninitializedParameter | UninitializedBuffer) for one in state)


def _of_timm(
    name: NetworkName,
    shape: tuple[int, ...],
    classes: int,
    pretrained: bool,
    log: Callable[[str], None],
) -> nn.Module:
    timm = imported("timm", name.text)
    config = timm_config(timm, name)
    how: dict[str, Any] = {"num_classes": classes, "in_chans": shape[0]}
    # Such networks are built for one size, and adapt their pretrained weights to another.
    if getattr(config, "fixed_input_size", False) and config.input_size[1:] != shape[1:]:
        how["img_size"] = shape[1:]
    if not pretrained:
        return _built(name.text, lambda: timm.create_model(name.where, pretrained=False, **how))
    try:
        network: nn.Module = timm.create_model(name.where, pretrained=True, **how)
    except Exception as error:  # of timm, of the hub, or of the network
        # Perhaps the network cannot be built, with or without its weights.
        _built(name.text, lambda: timm.create_model(name.where, pretrained=False, **how))
        source = getattr(config, "hf_hub_id", None) or getattr(config, "url", "") or name.where
        raise unavailable(
            name.text,
            error,
            tried=f"timm looked for {source} in the Hugging Face cache, and tried to download it",
            get=f"hf download {source}",
        ) from error
    same = getattr(config, "num_classes", None) == classes
    start = "including its head" if same else "its head starts from random weights"
    log(f"initial weights: those of {name.where} in timm; {start}")
    return network


def timm_config(timm: Any, name: NetworkName) -> Any:
    """Return what timm knows about the pretrained weights of a network; None if nothing.

    Raises:
        UserError: if timm has no such network, or no such weights of it.
    """
    if not timm.is_model(name.where):
        raise _unknown("timm", name.where, timm.list_models())
    try:
        return timm.get_pretrained_cfg(name.where)
    except RuntimeError as error:
        base = name.where.partition(".")[0]
        raise UserError(
            f"{name.text}: timm has no such weights ({one_line(error)}). "
            f"timm.list_pretrained({base + '*'!r}) lists those that it has."
        ) from error


def _of_torchvision(
    name: NetworkName,
    shape: tuple[int, ...],
    classes: int,
    pretrained: bool,
    log: Callable[[str], None],
) -> nn.Module:
    if shape[0] != 3:
        raise UserError(
            f"{name.text} expects 3 channels, got {shape[0]}. Try timm:{name.where}, which takes "
            "any number of channels if timm has that network."
        )
    models = imported("torchvision", name.text).models
    weights = torchvision_weights(models, name)
    settings: dict[str, Any] = {"weights": None, "num_classes": classes}
    if name.where.lower() in _AUXILIARY:
        # Their pretrained weights expect inputs that the network itself normalizes anew.
        settings |= {"aux_logits": False, "init_weights": True}
        settings |= {"transform_input": weights is not None or name.weights_file is not None}
    if name.where.lower().startswith("vit_"):  # their position embeddings have the size of images
        settings |= {"image_size": shape[1]}
    network = _built(name.text, lambda: models.get_model(name.where, **settings))
    if not pretrained:
        return network
    try:
        tensors = weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # of the network
        raise unavailable(
            name.text,
            error,
            tried=f"torchvision looked for {weights.url} in the cache of torch.hub, and tried to "
            "download it",
            get=f"python -c 'import torch; torch.hub.load_state_dict_from_url(\"{weights.url}\")'",
        ) from error
    load_initial_weights(network, torchvision_tensors(tensors), origin=str(weights), log=log)
    return network


def torchvision_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a file of torchvision by their current names, without auxiliary ones.

    Example:
        >>> torchvision_tensors({"aux1.bias": torch.ones(1), "fc.bias": torch.ones(2)})
        {'fc.bias': tensor([1., 1.])}
    """
    return {
        re.sub(_OLD_NAME, r"\1\2", k): v
        for k, v in tensors.items()
        if not k.lower().startswith("aux")
    }


def torchvision_weights(models: Any, name: NetworkName) -> Any:
    """Return the weights of torchvision that a name asks for; None if it asks for none.

    Raises:
        UserError: if torchvision has no such network, or no such weights of it.
    """
    # Only classifiers: building other networks may start a download.
    known = models.list_models(module=models)
    if name.where.lower() not in known:
        raise _unknown("torchvision", name.where, known)
    if not name.pretrained:
        return None
    choices = models.get_model_weights(name.where).__members__
    if name.options["weights"] not in choices:
        raise UserError(
            f"{unknown(f'weights of {name.where}', name.options['weights'], choices)}. The name of "
            f"a file ends in {', '.join(WEIGHTS_SUFFIXES)}."
        )
    return choices[name.options["weights"]]


def _built(name: str, make: Callable[[], Any]) -> nn.Module:
    try:
        network = make()
    except Exception as error:  # other people's code may raise anything
        raise UserError(
            f"{name} failed to build a network for the shape and number of classes of the data set "
            f"({one_line(error)}). Call it in Python to see where."
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{name}: expected a torch.nn.Module from the call with (shape, classes), got "
            f"{type(network).__name__}. Return the network itself."
        )
    return network


def _unknown(library: str, network: str, names: Iterable[str]) -> UserError:
    """Return an error with the nearest names, since libraries have too many to list them all."""
    known = list(names)
    near = difflib.get_close_matches(network, known, n=5, cutoff=0.4) or known[:5]
    return UserError(
        f"{library} has no classification network {network!r}. The nearest of {len(known)} are "
        f"{', '.join(near)}."
    )
