"""The dropout layers of a network."""

from torch import nn

from vicinal.errors import UserError

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def set_dropout(network: nn.Module, p: float) -> None:
    """Set the probability of all dropout layers of a network.

    Args:
        network: any network.
        p: the probability that a value is dropped.

    Raises:
        UserError: if it has no dropout layer.

    Example:
        >>> network = nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 2))
        >>> set_dropout(network, 0.5)
        >>> network[0].p
        0.5
    """
    found = [module for module in network.modules() if isinstance(module, _DROPOUT)]
    if not found:
        raise UserError(
            f"training.dropout: expected a network with dropout layers (nn.Dropout), got "
            f"{type(network).__name__}, which has none. Remove it, or choose small-cnn or a "
            "preact-resnet."
        )
    for module in found:
        module.p = p
