"""Checks before training that the policies and settings of arms fit the data and the network."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from vicinal.data import DataSet
from vicinal.data.tables.table import listed
from vicinal.errors import TrialError, UserError
from vicinal.import_path import one_line
from vicinal.mixing import (
    CleanAndMixed,
    DifferentClass,
    MixedInside,
    MixUp,
    Nearest,
    OtherBatch,
    Plan,
    SameClass,
    SimilarTargets,
)
from vicinal.models import HuggingFace, build, input_format
from vicinal.models.hugging_face import EMBEDDING
from vicinal.training.arms import MixingArm, policy_of
from vicinal.training.devices import hardware_errors_explained
from vicinal.training.loop import image_size_of
from vicinal.training.settings import Recipe
from vicinal.training.task import Task, task_of
from vicinal.training.trial import fabric_for, learner_of
from vicinal.training.trial_result import Trial
from vicinal.training.trial_setup import (
    build_network,
    make_loaders,
    own_settings_named,
    tested_shape,
)

_ROWS = 4
"""The number of examples of the batch that is mixed to try a policy."""


def check_arms(recipe: Recipe, data: DataSet, arms: Iterable[str]) -> list[str]:
    """Raise unless the policies of arms can mix the data, at the layers that they name.

    Each policy mixes a small batch of random inputs of the right shape. If an arm names layers, an
    untrained network is run. This does not change the random numbers of training.

    Args:
        recipe: the recipe.
        data: its data set.
        arms: the names of the arms to check.

    Returns:
        A warning for each arm whose layers only a part of an example passes through.

    Raises:
        UserError: with a line for each arm that does not fit.
    """
    mixing = {k: arm for k in arms if isinstance(arm := recipe.arms[k], MixingArm)}
    name, shape, task = recipe.model.name, _shape(recipe, data), task_of(data, recipe.task)
    tokens = data.train.inputs.dtype == torch.int64
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        y = task.learned(data.train.targets[:_ROWS])
        x = torch.zeros(len(y), *shape, dtype=torch.int64) if tokens else torch.rand(len(y), *shape)
        network = None
        if any(tokens or arm.at != ("input",) for arm in mixing.values()):
            network = build(name, shape=shape, classes=task.outputs, initial_weights=False).eval()
            _fill_zeros(network)
        more: dict[str, Any] = {"task": task, "network": network}
        found = {name: _problem(arm, data, x, y, **more) for name, arm in mixing.items()}
        if lines := [f"arms.{name}{problem}." for name, problem in found.items() if problem]:
            raise UserError("\n".join(lines))
        if network is None or tokens:
            return []
        bypassed = {name: _bypassed(network, arm.at, x) for name, arm in mixing.items()}
    return [
        f"warning: arms.{name}.at: only a part of each example passes through {listed(layers)}, as "
        "in a residual branch; the rest is not mixed, although labels are. Choose layers that all "
        "of it passes through"
        for name, layers in bypassed.items()
        if layers
    ]


def check_training(recipe: Recipe, data: DataSet, trials: Iterable[Trial]) -> None:
    """Raise unless the arms that change training or augmentation can be trained: prepare a trial.

    The other arms need no check, since the first of them would stop the study at its start.

    Raises:
        UserError: as ``run_trial`` does before training.
    """
    arms = {one.arm: one for one in trials}
    own = [k for k in arms if recipe.arms[k].training or recipe.arms[k].augment]
    for name in own:
        with suppress(TrialError):  # too little memory, say: the trial will report it
            _prepare(recipe, arms[name], data)


def _prepare(recipe: Recipe, trial: Trial, data: DataSet) -> None:
    settings, task = recipe.training_of(trial.arm), task_of(data, recipe.task)
    with own_settings_named(recipe, trial.arm), hardware_errors_explained(settings.batch_size):
        fabric = fabric_for(settings)
        loaders = make_loaders(recipe, trial, data, task, fabric)
        model = build_network(recipe, trial, data, task, loaders)
        learner_of(model, recipe, trial, data, fabric=fabric, task=task, labels=loaders.labels)


def _shape(recipe: Recipe, data: DataSet) -> tuple[int, ...]:
    """Return the shape of one example as the network gets it."""
    shape = tested_shape(recipe.data, data.train)
    known = input_format(recipe.model.name) if len(shape) == 3 else None
    return shape if known is None else (max(len(known.mean), shape[0]), *shape[1:])


def _problem(
    arm: MixingArm,
    data: DataSet,
    x: Tensor,
    y: Tensor,
    *,
    task: Task,
    network: nn.Module | None,
) -> str:
    """Return the first problem of an arm, or ``""``."""
    try:
        policies = list(_parts(policy_of(arm, data)))
    except UserError as error:
        return f": {error}"
    if network is not None and not x.is_floating_point() and "input" in arm.at:
        layers = [EMBEDDING] if isinstance(network, HuggingFace) else _embeddings(network)
        return (
            ".at: tokens are numbers of words, so the input of a text network cannot be mixed. Mix "
            f"the vectors of the tokens: at = {json.dumps(layers)}"
        )
    for policy in policies:
        if problem := _misfit(policy, task.name) or _failure(policy, x, y, task.outputs):
            return f": {problem}"
    if network is None or arm.at == ("input",):
        return ""
    problem = _failure_at_layers(policies, network, arm.at, x, y)
    return f".at: {problem}" if problem else ""


def _embeddings(network: nn.Module) -> list[str]:
    return [name for name, m in network.named_modules() if isinstance(m, nn.Embedding)][:1]


def _parts(policy: Any) -> Iterator[Any]:
    """Yield the policies that a policy consists of, and the policy itself."""
    fields = dataclasses.fields(policy) if dataclasses.is_dataclass(policy) else ()
    for one in fields:
        value = getattr(policy, one.name)
        for inner in value if isinstance(value, tuple | list) else (value,):
            if hasattr(inner, "draw"):
                yield from _parts(inner)
    yield policy


def _misfit(policy: Any, task: str) -> str:
    """Return why a pairing does not fit the task or the training loop, or ``""``."""
    pairing = getattr(policy, "pairing", None)
    name = type(pairing).__name__
    if isinstance(pairing, OtherBatch):
        return f"{name} needs a second batch, and a training step has one. Choose another pairing"
    if isinstance(pairing, SimilarTargets) and task != "regression":
        got = "classes" if task == "classification" else "labels"
        return f"{name} expects real-valued targets, got {got}. Choose another pairing"
    if getattr(policy, "targets", None) == "union" and task != "multi-label":
        return 'targets = "union" expects several labels for each example. Remove it'
    if isinstance(pairing, SameClass | DifferentClass) and task != "classification":
        return f"{name} expects one class for each example. Choose another pairing"
    return ""


def _failure(policy: Any, x: Tensor, y: Tensor, classes: int) -> str:
    """Return why a policy cannot mix a batch, or ``""``."""
    if isinstance(getattr(policy, "pairing", None), Nearest) and not x.is_floating_point():
        return (
            "Nearest compares inputs, and the numbers of tokens have no distances. Choose another "
            "pairing"
        )
    try:
        plan: Any = _drawn(policy, x, y)
        if x.is_floating_point():
            plan.mix(x)
        if isinstance(plan, Plan | CleanAndMixed):
            plan.targets(y, None if y.dtype.is_floating_point else classes)
        text = ""
    except Exception as error:  # of the user's own policy, too
        plan, text = None, str(error).removesuffix(".") or type(error).__name__
    # CutMix would take a row of a table for a signal, and neighboring columns for a segment of it.
    drawn = getattr(plan, "plan", plan)  # that of RegMixUp has the plan of the blends
    segment = getattr(drawn, "region", None) is not None and not getattr(drawn, "columns", False)
    name, shape = type(policy).__name__, tuple(x.shape[1:])
    if x.dim() == 2 and (segment or "image_size" in text):
        return (
            f"{name} shows the partner in a region, so it expects images, got inputs of shape "
            f"{shape}. Choose another policy, such as mixup or column-cutmix"
        )
    if "image_size" in text:
        return f"{name} cannot mix inputs of shape {shape}. Choose another policy, such as mixup"
    return text


def _failure_at_layers(
    policies: Sequence[Any], network: nn.Module, at: Sequence[str], x: Tensor, y: Tensor
) -> str:
    """Return why the outputs of layers cannot be mixed, or ``""``."""
    try:
        layers = MixedInside(network, policies[-1], at=at).layers
    except ValueError as error:
        return str(error)
    try:
        logits = network(x)
    except Exception:  # is reported as that of the network when a trial builds it
        return ""
    for layer in layers:
        if _has_no_effect(network, layer, x, logits):
            return (
                f"mixing the output of {layer} does not change what the network returns. Choose "
                "other layers"
            )
        for policy in policies:
            plan = _drawn(policy, x, y)
            try:
                MixedInside(network, policy, at=[layer])(x, plan, at=layer)
            except Exception as error:  # of the network, too
                if getattr(getattr(plan, "plan", plan), "region", None) is not None:
                    return (
                        f"{type(policy).__name__} draws regions for the size of the inputs, "
                        f"{image_size_of(x)}, which the output of {layer} does not have. Choose "
                        'layers that have it, such as "input"'
                    )
                return f"the output of {layer} cannot be mixed ({one_line(error)})"
    return ""


def _bypassed(network: nn.Module, at: Sequence[str], x: Tensor) -> list[str]:
    """Return the layers where swapping two examples does not swap what the network returns."""
    swap = Plan(torch.arange(len(x)).roll(1), torch.zeros(len(x)))
    found = []
    try:
        logits = network(x)
        for layer in MixedInside(network, MixUp(1.0), at=at).layers:
            swapped = MixedInside(network, MixUp(1.0), at=[layer])(x, swap, at=layer)
            differences = [(one - logits.roll(1, 0)).abs().max() for one in (swapped, logits)]
            if differences[0] > 0.01 * differences[1]:  # more than rounding
                found.append(layer)
    except Exception:  # is reported as that of the network when a trial builds it
        return []
    return found


def _fill_zeros(network: nn.Module) -> None:
    """Fill parameters of zeros, as at the end of residual branches, which hide what is mixed."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)


def _has_no_effect(network: nn.Module, layer: str, x: Tensor, logits: Tensor) -> bool:
    """Return whether a blend at a layer leaves logits the same that differ between examples."""
    half = Plan(torch.arange(len(x)).roll(1), torch.full((len(x),), 0.5))
    try:
        mixed = MixedInside(network, MixUp(1.0), at=[layer])(x, half, at=layer)
        return torch.equal(mixed, logits) and not torch.equal(logits, logits.roll(1, 0))
    except Exception:  # is reported as that of the policy
        return False


def _drawn(policy: Any, x: Tensor, y: Tensor) -> Any:
    return policy.draw(len(x), y=y, features=x, image_size=image_size_of(x))
