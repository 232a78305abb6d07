"""Networks by name, and the layers of each where mixing makes sense."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from vicinal.errors import UserError, unknown
from vicinal.models.densenet import DenseNet
from vicinal.models.external import EXTERNAL_NAMES, build_external, check_external
from vicinal.models.fast_cnn import FastCNN
from vicinal.models.mlp import MLP
from vicinal.models.preact_resnet import PreActResNet
from vicinal.models.resnet import ResNet
from vicinal.models.small_cnn import SmallCNN
from vicinal.models.vgg import VGG, LeNet


class Network(NamedTuple):
    """How a network is built.

    Args:
        make: builds it from the shape of one example and the number of classes.
        layers: the modules after which it can be mixed.
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


def build(name: str, *, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build a network with initial weights from torch's global generator.

    Args:
        name: one of ``NETWORKS``; or ``timm:NAME`` or ``torchvision:NAME``, a network of these
            libraries; or ``package.module:callable``, which is called with ``(shape, classes)``.
        shape: of one example, such as (channels, height, width).
        classes: number of logits.

    Raises:
        UserError: if the name is unknown, if an external network cannot be imported or built, or
            if the network does not take examples of this shape.

    Example:
        >>> sum(p.numel() for p in build("small-cnn", shape=(1, 8, 8), classes=10).parameters())
        19258
        >>> type(build("vicinal.models.mlp:MLP", shape=(4,), classes=3)).__name__
        'MLP'
    """
    check_name(name)
    if ":" in name:
        return build_external(name, shape=tuple(shape), classes=classes)
    network = NETWORKS[name]
    if not _takes(network, shape):
        takers = ", ".join(n for n, other in NETWORKS.items() if _takes(other, shape))
        raise UserError(
            f"{name} does not take examples of shape {tuple(shape)}. These networks do: {takers}."
        )
    return network.make(tuple(shape), classes)


def check_name(name: str) -> None:
    """Check the name of a network, without importing anything.

    Args:
        name: as for ``build``. Only the form of an external name is checked.

    Raises:
        UserError: if it is neither one of ``NETWORKS`` nor the name of an external network.

    Example:
        >>> check_name("small-cnn")
        >>> check_name("timm:resnet18")
    """
    if ":" in name:
        check_external(name)
    elif name not in NETWORKS:
        raise UserError(
            f"{unknown('network', name, NETWORKS)}. External networks are {EXTERNAL_NAMES}."
        )


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
    check_name(name)
    return None if ":" in name else ("input", *NETWORKS[name].layers)


def _takes(network: Network, shape: tuple[int, ...]) -> bool:
    if network.smallest is None:
        return True
    return len(shape) == 3 and min(shape[1:]) >= network.smallest
