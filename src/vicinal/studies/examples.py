"""A few blended examples, for a figure of the report."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import torch

from vicinal.data import DataSet
from vicinal.files import write_whole
from vicinal.mixing import generator_at
from vicinal.training.settings import MixUpArm, Recipe
from vicinal.training.trial import policy_of

COUNT = 6


def write_examples(path: Path, recipe: Recipe, data: DataSet) -> None:
    """Write some examples, their partners and their blends, by the policy of the first mixing arm.

    Nothing is written if no arm mixes, or if the inputs are not images. Every example has its own
    lam, so that they differ.
    """
    arms = [arm for arm in recipe.arms.values() if isinstance(arm, MixUpArm)]
    if not arms or data.brightest is None:
        return
    policy = policy_of(arms[0])
    generator = generator_at(recipe.seed, 0)
    read = data.train.read(range(min(COUNT, len(data.train))))
    own, labels = read.inputs, data.train.targets[torch.from_numpy(read.kept)]
    each = dataclasses.replace(policy, per="example", mix_rate=1.0)
    plan = each.draw(len(own), generator=generator)
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
