"""Run a network on data as probes do: in eval mode, checked, and without traces in the network."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vicinal.errors import UserError

Data = Iterable[Sequence[Tensor]]
"""Batches ``(inputs, targets)``, such as a ``DataLoader`` or a list with one pair."""


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a network in eval mode without gradients of its parameters, and restore both.

    Gradients with respect to inputs can be computed, also within ``torch.no_grad()``.

    Raises:
        UserError: if this is not a network.
    """
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model: expected an nn.Module, got {type(model).__name__}. For a function, write a "
            "module whose forward calls it."
        )
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def batches(
    model: nn.Module, data: Data, *, where: str = "data", names: Sequence[str]
) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches, with inputs on the device and in the floating-point dtype of a network.

    Args:
        model: a network; without parameters, inputs stay as they are.
        data: batches: tuples or lists of tensors.
        where: the argument that holds the data, for errors.
        names: names of the first tensors of a batch, beginning with ``"inputs"``; further tensors
            are ignored.

    Yields:
        The tensors of each batch that are used, all on the device of the network.

    Raises:
        UserError: if a batch has fewer tensors than there are names, if these differ in length, or
            if there are no examples.
    """
    found = False
    for batch in data:
        needed = f"{where}: expected batches ({', '.join(names)}) of tensors"
        if not isinstance(batch, (tuple, list)):
            raise UserError(
                f"{needed}, got {type(batch).__name__}. Pass a DataLoader, or a list with one "
                f"batch: [({', '.join(names)},)]."
            )
        used = tuple(batch[: len(names)])
        if len(used) < len(names) or not all(isinstance(one, Tensor) for one in used):
            got = ", ".join(type(one).__name__ for one in batch)
            raise UserError(f"{needed}, got ({got}). Change the collate_fn of the DataLoader.")
        sizes = [len(one) if one.dim() else None for one in used]
        if len(set(sizes)) > 1 or None in sizes:
            shapes = ", ".join(str(tuple(one.shape)) for one in used)
            raise UserError(f"{needed} of the same length, got shapes {shapes}.")
        if len(used[0]):
            found = True
            yield _placed(model, used)
    if not found:
        raise UserError(
            f"{where}: expected at least one example, got none. An iterator can be read only once."
        )


def _placed(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    device = next((one.device for one in model.parameters()), batch[0].device)
    # Gradients with respect to tensors of inference mode are an error.
    normal = (one.clone() if one.is_inference() else one for one in batch)
    inputs, *others = (one.detach().to(device) for one in normal)
    if inputs.is_floating_point():
        floating = (one.dtype for one in model.parameters() if one.is_floating_point())
        inputs = inputs.to(next(floating, inputs.dtype))
    return (inputs, *others)


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the logits of a network for a batch; call it within ``eval_mode``.

    Raises:
        UserError: unless the outputs are ``(batch, classes)`` floating-point numbers.
    """
    outputs = model(inputs)
    if not isinstance(outputs, Tensor):
        raise UserError(
            f"outputs: expected a tensor of logits, got {type(outputs).__name__}. Wrap the network "
            "in a module whose forward returns only the logits."
        )
    if outputs.dim() != 2 or len(outputs) != len(inputs) or outputs.shape[1] < 2:
        raise UserError(
            f"outputs: expected logits ({len(inputs)}, classes) with at least two classes, got "
            f"shape {tuple(outputs.shape)}."
        )
    if not outputs.is_floating_point():
        raise UserError(f"outputs: expected floating-point logits, got {outputs.dtype}.")
    return outputs


def check_finite(largest: Tensor, *, where: str = "outputs") -> None:
    """Raise a ``UserError`` if the largest logit of an example, ``(n,)``, is not finite."""
    wrong = ~torch.isfinite(largest)  # the largest one is NaN if any is
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise UserError(
            f"{where}, row {row}: expected finite logits, got {largest[row]:g} as the largest one. "
            "The training may have diverged, or a low-precision dtype overflowed: use float32."
        )


def check_logits(logits: Tensor, *, where: str = "outputs") -> None:
    """Raise a ``UserError`` if logits ``(n, classes)`` are NaN, plus infinity or probabilities.

    Minus infinity stands for a class that is impossible; a row needs at least one other. Pass all
    examples together, since a few rows of logits can sum to 1 by chance.
    """
    check_finite(logits.amax(1), where=where)
    # The tolerance is that of bfloat16.
    if (logits >= 0).all() and ((logits.float().sum(1) - 1).abs() < 0.01).all():
        raise UserError(
            f"{where}: expected logits, got probabilities: no value is negative, and every row "
            "sums to 1. Remove the softmax at the end of the network, or pass the logarithm of "
            "its outputs."
        )


def check_labels(labels: Tensor, classes: int, *, where: str = "targets") -> None:
    """Raise a ``UserError`` unless labels are ``(n,)`` integers from 0 to ``classes - 1``."""
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise UserError(
            f"{where}: expected integer labels of shape (n,), got {labels.dtype} of shape "
            f"{tuple(labels.shape)}. For one-hot targets, pass targets.argmax(1)."
        )
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise UserError(
            f"{where}: expected labels from 0 to {classes - 1}, since the network has {classes} "
            f"outputs, got {int(labels[wrong][0])}. Leave out examples without a label."
        )


def predictions_of(model: nn.Module, data: Data, *, where: str = "data") -> tuple[Tensor, Tensor]:
    """Return the checked logits ``(n, classes)`` and labels ``(n,)`` of all examples, on the CPU.

    Args:
        model: maps ``(batch, ...)`` to logits ``(batch, classes)``.
        data: batches ``(inputs, targets)``.
        where: the argument that holds the data, for errors.

    Returns:
        Logits in the dtype of the network, and int64 labels, in the order of the data.

    Raises:
        UserError: if data, outputs or labels are not as expected.
    """
    with eval_mode(model), torch.no_grad():
        found = [
            (logits_of(model, inputs).cpu(), targets.cpu())
            for inputs, targets in batches(model, data, where=where, names=("inputs", "targets"))
        ]
    logits, labels = (torch.cat(each) for each in zip(*found, strict=True))
    check_logits(logits)
    check_labels(labels, logits.shape[1], where=f"{where}, targets")
    return logits, labels.long()


def input_gradient(total: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient of a sum over examples with respect to the inputs.

    Raises:
        UserError: if the sum does not depend on the inputs in a differentiable way, or if the
            gradient is NaN.
    """
    gradient = None
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total, inputs, allow_unused=True)
    if gradient is None:
        raise UserError(
            "model: expected a network with gradients with respect to its inputs, but there are "
            "none. Look for no_grad, detach, round or integer conversions in its forward method."
        )
    if gradient.isnan().any():
        raise UserError(
            "model: expected finite gradients with respect to the inputs, got NaN. Look for square "
            "roots or divisions at zero in its forward method."
        )
    return gradient
