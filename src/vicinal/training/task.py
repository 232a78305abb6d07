"""What a network is trained to predict: classes, several labels, or real values."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vicinal.data import DataSet
from vicinal.errors import UserError


@dataclass(frozen=True, eq=False)
class Task:
    """A task, with what turns the outputs of a network into predictions.

    Args:
        name: ``"classification"``, ``"multi-label"`` or ``"regression"``.
        outputs: number of outputs of the network: classes, labels or real values.
        mean: ``(outputs,)`` float32; networks learn real values with mean 0 and std 1. 0 otherwise.
        std: likewise; 1 otherwise.
    """

    name: str
    outputs: int
    mean: Tensor
    std: Tensor

    def learned(self, targets: Tensor) -> Tensor:
        """Return targets as the network learns them; real values as ``(n, outputs)``."""
        if self.name == "classification":
            return targets
        columns = targets.view(len(targets), -1)
        return (columns - self.mean.to(columns)) / self.std.to(columns)

    def outputs_of(self, raw: Tensor) -> Tensor:
        """Return the outputs of a network as logits, or in the units of the targets."""
        if self.name != "regression":
            return raw
        return raw * self.std.to(raw) + self.mean.to(raw)

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return outputs as probabilities of classes or labels; real values are not changed.

        Example:
            >>> task = Task("multi-label", 2, torch.zeros(2), torch.ones(2))
            >>> task.predicted(torch.tensor([[0.0, 99.0]])).tolist()
            [[0.5, 1.0]]
        """
        if self.name == "classification":
            return outputs.softmax(1)
        return outputs.sigmoid() if self.name == "multi-label" else outputs


def task_of(data: DataSet, wanted: str) -> Task:
    """Return the task of a data set.

    Integer targets are classes. Targets of several columns that are all 0 or 1 are labels, and
    other targets are real values.

    Args:
        data: the data set.
        wanted: the recipe's ``task``: a name, or ``"auto"``.

    Raises:
        UserError: if the targets do not fit the task, or are all the same.

    Example:
        >>> from vicinal.data import load
        >>> task = task_of(load("iris"), "auto")
        >>> task.name, task.outputs
        ('classification', 3)
    """
    targets = data.train.targets
    if not targets.is_floating_point():
        found, outputs = "classification", len(data.classes)
    else:
        labels = targets.dim() == 2 and bool(((targets == 0) | (targets == 1)).all())
        found = "multi-label" if labels and wanted != "regression" else "regression"
        outputs = targets.shape[1] if targets.dim() == 2 else 1
    if wanted not in ("auto", found):
        hint = "Add task=regression to the options of a table." if found == "classification" else ""
        raise UserError(
            f"task: expected {found}, which fits the targets of this data set, got {wanted}. "
            f"{hint}".rstrip()
        )
    zeros, ones = torch.zeros(outputs), torch.ones(outputs)
    if found != "regression":
        return Task(found, outputs, zeros, ones)
    columns = targets.double().view(len(targets), -1)
    std, mean = torch.std_mean(columns, 0, correction=0)
    if not bool((std > 0).all()):
        raise UserError(
            f"expected targets that differ, got {float(columns[0, int(std.argmin())]):g} for all "
            "training examples. Choose another column as the label."
        )
    coarse = columns.abs().amax(0) * torch.finfo(torch.float32).eps > 1e-3 * std
    if bool(coarse.any()):
        worst = int(coarse.int().argmax())
        raise UserError(
            "expected targets that differ by more than the rounding error of float32, got up to "
            f"{float(columns[:, worst].abs().max()):.9g} with a standard deviation of "
            f"{float(std[worst]):.3g}. Subtract a constant, such as the smallest one."
        )
    return Task(found, outputs, mean.float(), std.float())


def constant_outputs(task: Task, targets: Tensor) -> dict[str, list[float]]:
    """Return the outputs of the best constant predictors, as plain values for JSON.

    Args:
        task: the task.
        targets: targets of the training split.

    Returns:
        ``mean``: log-probabilities of the classes, logits of the labels, or the mean of real
        values. For real values also ``median``, which has the smallest absolute error.

    Example:
        >>> from vicinal.data import load
        >>> data = load("iris")
        >>> constant_outputs(task_of(data, "auto"), data.train.targets)
        {'mean': [-1.0986122886681098, -1.0986122886681098, -1.0986122886681098]}
    """
    if task.name == "classification":
        shares = targets.bincount(minlength=task.outputs).double().clamp(min=0.5) / len(targets)
        return {"mean": shares.log().tolist()}
    columns = targets.double().view(len(targets), -1)
    mean = columns.mean(0)
    if task.name == "multi-label":
        return {"mean": mean.clamp(0.5 / len(targets), 1 - 0.5 / len(targets)).logit().tolist()}
    return {"mean": mean.tolist(), "median": np.median(columns.cpu(), 0).tolist()}
