"""Networks by name, and the layers of each where mixing makes sense."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from vicinal.errors import UserError, unknown
from vicinal.models.densenet import DenseNet
from vicinal.models.external import build_external, torchvision_tensors
from vicinal.models.fast_cnn import FastCNN
from vicinal.models.hugging_face import EMBEDDING, build_hugging_face
from vicinal.models.mlp import MLP
from vicinal.models.network_name import EXTERNAL_NAMES, NetworkName, parse_name
from vicinal.models.preact_resnet import PreActResNet
from vicinal.models.resnet import ResNet
from vicinal.models.small_cnn import SmallCNN
from vicinal.models.vgg import VGG, LeNet
from vicinal.models.weights_file import load_initial_weights, read_weights


class Network(NamedTuple):
    """How a network is built.

    Args:
        make: builds it from the shape of one example and the number of classes.
        layers: the modules whose outputs can be mixed.
        smallest: the smallest height and width of an image or spectrogram; None for networks that
            take examples of any shape.
    """

    make: Callable[[tuple[int, ...], int], nn.Module]
    layers: tuple[str, ...]
    smallest: int | None


def _stages(count: int, *, of: str = "stages.stage") -> tuple[str, ...]:
    return tuple(f"{of}{k + 1}" for k in range(count))


def _preact(count: int, **settings: Any) -> Network:
    return Network(partial(PreActResNet, **settings), ("stem", *_stages(count)), smallest=8)


def _dense(**settings: Any) -> Network:
    blocks = _stages(3, of="blocks.block")
    return Network(partial(DenseNet, **settings), ("stem", *blocks), smallest=8)


def _large(**settings: Any) -> Network:
    return Network(partial(ResNet, **settings), ("stem", *_stages(4)), smallest=32)


NETWORKS = {
    "small-cnn": Network(SmallCNN, _stages(3, of="stage"), smallest=4),
    "fast-cnn": Network(FastCNN, _stages(3, of="block"), smallest=9),
    "mlp": Network(MLP, ("layer1", "layer2"), smallest=None),
    "lenet": Network(LeNet, _stages(2, of="stage"), smallest=16),
    "vgg-11": Network(VGG, _stages(5), smallest=32),
    "preact-resnet-10-small": _preact(4, units=(1,) * 4, widths=(16, 32, 64, 128), stem=16),
    "preact-resnet-18": _preact(4),
    # Of facebookresearch/mixup-cifar10 (models/resnet.py, ResNet18), and of hongyi-zhang/mixup and
    # vikasverma1077/manifold_mixup (both after kuangliu/pytorch-cifar, PreActResNet18).
    "preact-resnet-18-mixup": _preact(
        4, normalize_stem=True, activated_identity=True, normalize_output=False, he=False
    ),
    "preact-resnet-18-manifold": _preact(4, normalize_output=False, he=False),
    "preact-resnet-34": _preact(4, units=(3, 4, 6, 3)),
    "preact-resnet-50": _preact(4, units=(3, 4, 6, 3), bottleneck=True),
    # Of the MXNet MixUp layer: hdjsjyl/mixup.
    "preact-resnet-50-small": _preact(
        3, units=(8, 8, 8), widths=(16, 32, 64), stem=16, projected=True, normalize_input=True
    ),
    "wrn-28-10": _preact(3, units=(4, 4, 4), widths=(160, 320, 640), stem=16),
    "densenet-bc-100": _dense(depth=100, growth=12),
    "densenet-bc-190": _dense(depth=190, growth=40),
    "resnet-50": _large(units=(3, 4, 6, 3)),
    "resnet-101": _large(units=(3, 4, 23, 3)),
    "resnext-101-32x4d": _large(units=(3, 4, 23, 3), groups=32, group_width=4),
    "resnext-101-64x4d": _large(units=(3, 4, 23, 3), groups=64, group_width=4),
}
"""The networks by their names."""


def build(
    name: str,
    *,
    shape: tuple[int, ...],
    classes: int,
    initial_weights: bool = True,
    config: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = lambda _sentence: None,
) -> nn.Module:
    """Build a network with the initial weights that its name asks for.

    If the name asks for none, initial weights come from torch's global generator. So do those of
    the head, if the pretrained weights have none, or one for another number of classes.

    Args:
        name: one of ``NETWORKS``; ``timm:NAME``, ``torchvision:NAME`` or ``hf:PATH_OR_NAME``, a
            network of these libraries; or ``package.module:callable``, which is called with
            ``(shape, classes)``. Options follow a question mark, such as
            ``timm:resnet18?pretrained=true``, ``torchvision:resnet18?weights=DEFAULT``, or
            ``small-cnn?weights=FILE`` for any network.
        shape: shape of one example, such as (channels, height, width).
        classes: number of logits.
        initial_weights: whether pretrained weights are loaded. Without them nothing is downloaded
            and no file of weights is read, as for the network of a checkpoint.
        config: what ``network_config`` returned for a Hugging Face network, which is then built
            without its files.
        log: is called with a sentence on the weights that were loaded.

    Raises:
        UserError: if the name is unknown, if an external network cannot be imported or built, if
            the network does not take examples of this shape, or if weights are not available or do
            not fit the network.

    Example:
        >>> sum(p.numel() for p in build("small-cnn", shape=(1, 8, 8), classes=10).parameters())
        19258
        >>> type(build("vicinal.models.mlp:MLP", shape=(4,), classes=3)).__name__
        'MLP'
    """
    parsed, shape = check_name(name), tuple(shape)
    pretrained = initial_weights and parsed.pretrained
    if parsed.library == "hf":
        network: nn.Module = build_hugging_face(
            name,
            parsed.where,
            shape=shape,
            classes=classes,
            pretrained=pretrained,
            config=config,
            log=log,
        )
    elif parsed.library:
        network = build_external(
            parsed, shape=shape, classes=classes, pretrained=pretrained, log=log
        )
    else:
        network = _build_own(parsed.where, shape, classes)
    if initial_weights and parsed.weights_file is not None:
        file = parsed.weights_file
        weights = read_weights(file)
        if parsed.library == "torchvision":
            weights = torchvision_tensors(weights)
        load_initial_weights(network, weights, origin=str(file), log=log)
    return network


def _build_own(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    network = NETWORKS[name]
    if not _takes(network, shape):
        takers = ", ".join(n for n, other in NETWORKS.items() if _takes(other, shape))
        raise UserError(
            f"{name} does not take examples of shape {shape}. These networks do: {takers}."
        )
    return network.make(shape, classes)


def check_name(name: str) -> NetworkName:
    """Check the name of a network and return it parsed, without importing anything.

    Args:
        name: as for ``build``. Only the form of an external name is checked.

    Raises:
        UserError: if it is neither one of ``NETWORKS`` nor the name of an external network, or if
            an option is invalid.

    Example:
        >>> check_name("small-cnn").where
        'small-cnn'
        >>> check_name("timm:resnet18").library
        'timm'
    """
    parsed = parse_name(name)
    if not parsed.library and parsed.where not in NETWORKS:
        raise UserError(
            f"{unknown('network', parsed.where, NETWORKS)}. External networks are {EXTERNAL_NAMES}."
        )
    return parsed


def mixing_layers(name: str) -> tuple[str, ...] | None:
    """Return the layers after which a network can be mixed: its input, then modules by name.

    Args:
        name: as for ``build``.

    Returns:
        The layers, or None for external networks, whose layers are unknown until they are built:
        their input and any module in ``named_modules()`` can be mixed.

    Raises:
        UserError: if the name is not that of a network.

    Example:
        >>> mixing_layers("small-cnn")
        ('input', 'stage1', 'stage2', 'stage3')
        >>> mixing_layers("timm:resnet18") is None
        True
    """
    parsed = check_name(name)
    return None if parsed.library else ("input", *NETWORKS[parsed.where].layers)


def default_layers(name: str, *, text: bool) -> tuple[str, ...]:
    """Return the layers after which a network is mixed by default.

    Args:
        name: as for ``build``.
        text: whether inputs are texts, whose tokens cannot be mixed.

    Example:
        >>> default_layers("hf:distilbert-base-uncased", text=True)
        ('embedding',)
        >>> default_layers("small-cnn", text=False)
        ('input',)
    """
    return (EMBEDDING,) if text and check_name(name).library == "hf" else ("input",)


def _takes(network: Network, shape: tuple[int, ...]) -> bool:
    if network.smallest is None:
        return True
    return len(shape) == 3 and min(shape[1:]) >= network.smallest
