"""The head of a network, which predicts classes from features, and the backbone in front of it."""

from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vicinal.errors import UserError
from vicinal.models.hugging_face import HuggingFace

_ATTRIBUTES = ("head", "heads", "fc", "classifier")
"""Under which names networks of vicinal and of torchvision keep their head."""


def head_names(network: nn.Module) -> set[str]:
    """Return the names of the parameters and buffers of the head, as in ``state_dict()``.

    The head of a network of timm is what ``get_classifier()`` returns; that of a Hugging Face
    network is everything outside of its ``base_model``, and what its pretrained weights lack; that
    of other networks is the module ``head``, ``heads``, ``fc`` or ``classifier``, or the last
    linear layer.

    Raises:
        UserError: if none of these exists.

    Example:
        >>> sorted(head_names(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))))
        ['2.bias', '2.weight']
    """
    names = network.state_dict().keys()
    if isinstance(network, HuggingFace):
        return network.head_names()
    heads = _heads(network)
    prefixes = [f"{name}." if name else "" for name, m in network.named_modules() if m in heads]
    found = {name for name in names if any(name.startswith(prefix) for prefix in prefixes)}
    if not found:
        raise UserError(
            f"{type(network).__name__}: expected a network with a head, which is a module named "
            "head, heads, fc or classifier, or a linear layer, got none. Name its last layer "
            "'head'."
        )
    return found


def head_modules(network: nn.Module) -> set[str]:
    """Return the names of the outermost modules that have no parameters but those of the head.

    Example:
        >>> sorted(head_modules(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))))
        ['2']
    """
    head = head_names(network)
    shared = {one for name in network.state_dict().keys() - head for one in _modules_around(name)}
    own = ([one for one in _modules_around(name) if one not in shared] for name in head)
    return {modules[0] for modules in own if modules}


def _modules_around(name: str) -> list[str]:
    """Return the modules that a parameter is in, from the outermost one."""
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]


def _heads(network: nn.Module) -> list[nn.Module]:
    if callable(classifier := getattr(network, "get_classifier", None)):
        found = classifier()
        return list(found) if isinstance(found, tuple | list) else [found]
    named = [module for name, module in network.named_children() if name in _ATTRIBUTES]
    if trained := [module for module in named if [*module.parameters()]]:
        return trained[-1:]
    linear: list[nn.Module] = [m for m in network.modules() if isinstance(m, nn.Linear)]
    return linear[-1:]


def head_parameters(network: nn.Module) -> set[int]:
    """Return the ``id`` of each parameter of the head, also of those that the backbone shares."""
    names = head_names(network)
    every = network.named_parameters(remove_duplicate=False)
    return {id(parameter) for name, parameter in every if name in names}


def freeze_backbone(network: nn.Module) -> None:
    """Let only the head of a network be trained, in place.

    Batch norms of the backbone stay in eval mode: they keep using their statistics, and do not
    update them.

    Raises:
        UserError: if no head is found.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> freeze_backbone(network)
        >>> [p.requires_grad for p in network.parameters()]
        [False, False, False, False, True, True]
        >>> network.train()[1].training
        False
    """
    head, trained = head_names(network), head_parameters(network)
    for parameter in network.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and f"{name}.num_batches_tracked" not in head:
            module.eval()
            # train() of the whole network calls train() of each module.
            module.train = partial(_unchanged, module)  # type: ignore[method-assign, assignment]


def _unchanged(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stand in for ``train(mode)`` of a module that stays in eval mode."""
    return module
