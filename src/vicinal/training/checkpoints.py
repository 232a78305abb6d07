"""Checkpoints of trained networks, and the state from which training resumes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from torch import Tensor, nn

from vicinal.data import Normalize
from vicinal.errors import UserError
from vicinal.training.loop import Learner, TrainingProgress
from vicinal.training.origin import checked_origin
from vicinal.training.settings import Recipe
from vicinal.training.tensor_tree import read_tree


class CheckpointInfo(pydantic.BaseModel):
    """What a checkpoint records about its network and its training.

    Args:
        recipe: recipe of the study.
        arm: arm of the trial.
        corrupted: fraction of corrupted training labels.
        seed: seed of the trial.
        shape: shape of one example, after cropping.
        network: see ``vicinal.models.network_config``.
        split: split of the trial.
        task: ``"classification"``, ``"multi-label"`` or ``"regression"``.
        classes: their names, in the order of the logits; empty for other tasks.
        preparation: how raw examples became inputs; see ``vicinal.data.DataSet``.
        origin: see ``vicinal.training.origin``.
        epoch: the epoch after which it was saved.
        test_metric: the primary metric, on the test split after that epoch.
        versions: versions of Python and packages.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    recipe: Recipe
    arm: str
    corrupted: float
    seed: int
    split: int
    task: str
    shape: tuple[pydantic.PositiveInt, ...]
    network: dict[str, Any] = {}
    classes: tuple[str, ...]
    preparation: dict[str, Any]
    origin: Annotated[dict[str, Any], pydantic.AfterValidator(checked_origin)]
    epoch: int
    test_metric: float
    versions: dict[str, str]

    @property
    def outputs(self) -> int:
        """The number of outputs of the network: classes, labels or real values."""
        return int(self.origin["data"]["outputs"])

    @pydantic.model_validator(mode="after")
    def _check_arm(self) -> "CheckpointInfo":
        if self.arm not in self.recipe.arms:
            raise ValueError("arm: expected one of the recipe")
        return self


class Checkpoint(pydantic.BaseModel):
    """A trained network without its code, and what its inputs and targets are normalized with.

    It is validated, since a file may come from anywhere.
    """

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    info: CheckpointInfo
    inputs: Normalize
    targets: Normalize
    weights: dict[str, Tensor]

    @pydantic.model_validator(mode="after")
    def _check_inputs(self) -> "Checkpoint":
        for tensor in (self.inputs.mean, self.inputs.std):
            # One channel may be repeated.
            shapes = (self.info.shape, (tensor.shape[:1] + self.info.shape[1:]))
            if self.network_shape not in shapes or not tensor.isfinite().all():
                raise ValueError("mean and std do not fit the shape of an example")
        targets = self.targets.mean, self.targets.std
        fits = targets[0].dim() == 1 and targets[0].shape == targets[1].shape
        if not fits or not all(bool(one.isfinite().all()) for one in targets):
            raise ValueError("mean and std of the targets do not fit")
        if self.info.task == "classification" and len(self.info.classes) != self.info.outputs:
            raise ValueError("classes do not fit the outputs")
        return self

    @property
    def network_shape(self) -> tuple[int, ...]:
        """The shape of one example as the network gets it, after normalization."""
        return tuple(torch.broadcast_shapes(self.info.shape, self.inputs.mean.shape))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        UserError: if the file is not one.
    """
    tree = read_tree(path)
    try:
        return Checkpoint.model_validate(tree)
    except (RuntimeError, pydantic.ValidationError) as error:
        raise UserError(
            f"{path}: expected a trained network of this version of vicinal, got something else. "
            "Choose a checkpoint.safetensors."
        ) from error


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Raise a ``UserError`` if weights do not have the names and shapes of those of a network."""
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        expected = tuple(own[name].shape) if name in own else "nothing"
        got = tuple(weights[name].shape) if name in weights else "nothing"
        if expected != got:
            raise UserError(
                f"{path} belongs to a different network than {type(model).__name__}: expected "
                f"{expected} for {name}, got {got}."
            )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Load weights into a network, after ``check_weights``."""
    check_weights(model, weights, path)
    state = model.state_dict()  # has the versions that some layers ask for
    state.update(weights)
    model.load_state_dict(state)


def training_state(learner: Learner, progress: TrainingProgress) -> dict[str, Any]:
    """Return everything that training needs to resume; every process has to call this."""
    sums = torch.stack([progress.loss, torch.full_like(progress.loss, progress.seen)])
    loss, seen = learner.fabric.all_reduce(sums, reduce_op="sum")
    return {
        "model": learner.model.state_dict(),
        "optimizers": [one.optimizer.state_dict() for one in learner.optimizers],
        "average": None if learner.average is None else learner.average.state_dict(),
        "scaler": learner.fabric.strategy.precision.state_dict(),
        "progress": {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": loss,
            "seen": int(seen),
            "mean": repr(progress.mean),  # may be nan, which JSON does not have
        },
    }


def restore(learner: Learner, state: Mapping[str, Any], path: str) -> TrainingProgress:
    """Restore what ``training_state`` returned.

    Args:
        learner: made with the same settings.
        state: the state.
        path: the file that it comes from, for errors.

    Raises:
        UserError: if the state belongs to a different network or optimizer.
    """
    load_weights(learner.model, state["model"], path)
    for optimizer, its_state in zip(learner.optimizers, state["optimizers"], strict=True):
        optimizer.optimizer.load_state_dict(its_state)
    if learner.average is not None:
        learner.average.load_state_dict(state["average"])
    learner.fabric.strategy.precision.load_state_dict(state["scaler"])
    saved = state["progress"]
    progress = TrainingProgress(saved["epoch"], saved["step"], mean=float(saved["mean"]))
    if learner.fabric.is_global_zero:  # the sums of all processes
        progress.loss, progress.seen = saved["loss"], saved["seen"]
    return progress
