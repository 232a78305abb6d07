"""A few blended examples, for a figure of the report."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vicinal.data import DataSet
from vicinal.files import write_whole
from vicinal.mixing import CleanAndMixed, OneOf, Plan, RegMixUp, generator_at
from vicinal.training.arms import MixingArm, policy_of
from vicinal.training.loop import image_size_of
from vicinal.training.settings import Recipe

COUNT = 6


def write_examples(path: Path, recipe: Recipe, data: DataSet) -> None:
    """Write some examples, their partners and their blends, by the first arm that makes blends.

    It has to mix at the input, and its blends to have two parents. Nothing is written if there is
    no such arm, or if the inputs are not images. Every example has its own lam, so that they
    differ.
    """
    if data.brightest is None:
        return
    read = data.train.read(range(min(COUNT, len(data.train))))
    own, labels = read.inputs, data.train.targets[torch.from_numpy(read.kept)]
    plans = (
        _draw(policy_of(arm), own, labels, seed=recipe.seed)
        for arm in recipe.arms.values()
        if isinstance(arm, MixingArm) and "input" in arm.at
    )
    plan = next((plan for plan in plans if plan is not None), None)
    if plan is None:
        return
    content = io.BytesIO()
    np.savez(
        content,
        own=own.numpy(),
        met=own[plan.partner].numpy(),
        blend=plan.mix(own.float()).numpy(),
        lam=plan.lam.numpy(),
        own_class=np.array([data.classes[k] for k in labels]),
        met_class=np.array([data.classes[k] for k in labels[plan.partner]]),
        brightest=data.brightest,
    )
    write_whole(path, content.getvalue())


def _draw(policy: Any, own: Tensor, labels: Tensor, *, seed: int) -> Plan | None:
    """Draw a plan with a lam for each example, if the policy makes blends of two parents."""
    while isinstance(policy, RegMixUp | OneOf):
        inner = policy.policies if isinstance(policy, OneOf) else [policy.policy]
        policy = next((one for one in inner if one is not None), None)
    if policy is None:
        return None
    if dataclasses.is_dataclass(policy) and not isinstance(policy, type):
        names = {one.name for one in dataclasses.fields(policy)}
        each: dict[str, Any] = {"per": "example", "mix_rate": 1.0}
        policy = dataclasses.replace(policy, **{k: v for k, v in each.items() if k in names})
    plan = policy.draw(
        len(own),
        generator=generator_at(seed, 0),
        y=labels,
        features=own,
        image_size=image_size_of(own),
    )
    plan = plan.plan if isinstance(plan, CleanAndMixed) else plan
    return plan if isinstance(plan, Plan) and plan.shares is None else None
