"""Evaluation: predictions of a network, and their loss. Inputs are never mixed."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from vicinal.training.metrics import metric_values
from vicinal.training.settings import Training


class Predictions(NamedTuple):
    """Outputs ``(n, k)``, such as logits, and the targets ``(n, ...)`` of the same examples."""

    outputs: Tensor
    targets: Tensor

    def metric(self, name: str, task: str) -> float:
        """Return a metric; see ``vicinal.training.metrics``.

        Example:
            >>> Predictions(torch.zeros(2, 4), torch.tensor([0, 3])).metric(
            ...     "accuracy", "classification"
            ... )
            0.5
        """
        outputs, targets = (one.cpu().numpy() for one in self)
        return float(np.mean(metric_values(name, outputs, targets, task)))


def predict(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    fabric: Fabric | None = None,
    settings: Training | None = None,
    task: str = "classification",
) -> Predictions:
    """Return the predictions of a network on all batches; see ``predict_batches``."""
    pairs = list(predict_batches(model, batches, fabric=fabric, settings=settings, task=task))
    return Predictions(*(torch.cat(each) for each in zip(*pairs, strict=True)))


def predict_batches(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    fabric: Fabric | None = None,
    settings: Training | None = None,
    task: str = "classification",
) -> Iterator[Predictions]:
    """Yield the predictions of a network in eval mode; its mode is restored at the end.

    Args:
        model: maps ``(batch, ...)`` to ``(batch, k)``.
        batches: inputs and targets, such as an epoch of a ``Loader``.
        fabric: sets the precision of the computation.
        settings: for ``tta``, which averages the outputs of an image and its horizontal flip, and
            for ``channels_last``.
        task: ``tta`` averages the log-probabilities of classes, and other outputs as they are.

    Yields:
        The outputs of each batch in the dtype of the network, and its targets.
    """
    training = model.training
    tta, channels_last = (settings.tta, settings.channels_last) if settings else (False, False)
    floats = (p.dtype for p in model.parameters() if p.is_floating_point())
    dtype = next(floats, torch.get_default_dtype())

    def forward(x: Tensor) -> Tensor:
        with fabric.autocast() if fabric else contextlib.nullcontext():
            outputs: Tensor = model(x)
        return outputs.to(dtype, copy=True)  # a replayed CUDA graph overwrites its outputs

    model.eval()
    try:
        for inputs, targets in batches:
            with torch.no_grad():  # networks may cache tensors that training needs later
                x = inputs.to(dtype) if inputs.is_floating_point() else inputs
                if channels_last and x.dim() == 4:
                    x = x.to(memory_format=torch.channels_last)
                outputs = forward(x)
                if tta and x.dim() == 4:
                    outputs = averaged(outputs, forward(x.flip(3)), task)
            yield Predictions(outputs, targets)
    finally:
        model.train(training)


def averaged(outputs: Tensor, others: Tensor, task: str) -> Tensor:
    """Return the mean of the outputs for images and for their flips: of log-probabilities."""
    if task == "classification":
        outputs, others = F.log_softmax(outputs, 1), F.log_softmax(others, 1)
    return (outputs + others) / 2


def gathered(predictions: Predictions, fabric: Fabric) -> Predictions:
    """Return the predictions of all processes, in the order of their ranks."""
    if fabric.world_size == 1:
        return predictions
    own = torch.tensor(len(predictions.targets), device=fabric.device)
    counts = torch.stack(_of_all_ranks(own)).tolist()
    most = max(counts)
    whole = []
    for tensor in predictions:
        padding = tensor.new_zeros(most - len(tensor), *tensor.shape[1:])
        every = _of_all_ranks(torch.cat([tensor, padding]))  # all have to be equally long
        whole.append(torch.cat([one[:k] for one, k in zip(every, counts, strict=True)]))
    return Predictions(*whole)


def _of_all_ranks(tensor: Tensor) -> list[Tensor]:
    # Fabric's all_gather uses a function that PyTorch has deprecated, with a warning.
    received = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(received, tensor)
    return received


def mean_loss(predictions: Predictions, criterion: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Return the mean loss of predictions, computed in float64.

    Example:
        >>> mean_loss(Predictions(torch.zeros(2, 4), torch.tensor([0, 3])), F.cross_entropy)
        1.3862943611198906
    """
    outputs, targets = predictions
    if outputs.device.type == "mps":  # has no float64
        outputs, targets = outputs.cpu(), targets.cpu()
    wide = targets.double() if targets.is_floating_point() else targets
    return float(criterion(outputs.double(), wide))
