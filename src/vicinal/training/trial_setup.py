"""What a trial needs before it can be trained: loaders and a network."""

from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vicinal.data import DataSet, Loader, Normalize, Split, corrupt_labels
from vicinal.errors import UserError
from vicinal.models import FastCNN, build
from vicinal.training.augment import evaluation_steps, training_steps
from vicinal.training.settings import Recipe, Training
from vicinal.training.trial_result import Trial, condition_name


def given_labels(recipe: Recipe, corrupted: float, data: DataSet) -> Tensor:
    """Return the labels to train with, of which a fraction is corrupted.

    Raises:
        UserError: if that fraction changes no label.
    """
    true = data.train.targets
    given = corrupt_labels(
        true, rate=corrupted, num_classes=len(data.classes), seed=recipe.seed
    ).labels
    if corrupted and torch.equal(given, true):
        raise UserError(
            f"{condition_name(corrupted)} changes none of the {len(true)} training labels; choose "
            "a larger fraction, or 0 for the true labels"
        )
    return given


class Loaders(NamedTuple):
    """What is trained on, the same to be looked at (its targets are rows), and the test."""

    train: Loader
    looked_at: Loader
    tested: Loader


def network_of(
    recipe: Recipe, trial: Trial, data: DataSet, loaders: Loaders, normalize: Normalize
) -> nn.Module:
    """Build the network, the same for all arms of a seed, and try it on two examples.

    Raises:
        UserError: if it cannot be built, or its answers do not fit the classes.
    """
    torch.manual_seed(trial.seed)
    x, _ = next(loaders.tested.epoch(0), (None, None))
    if x is None:
        raise UserError("none of the examples to test on can be read; see vicinal data info")
    model = build(recipe.model.name, shape=tuple(x.shape[1:]), classes=len(data.classes))
    if isinstance(model, FastCNN):
        rows = range(0, len(data.train), max(1, len(data.train) // WHITENED_BY))
        read = data.train.read(rows)
        model.whiten_by(normalize.apply(read.inputs, torch.empty(len(read.inputs), 0)))
    model.eval()
    with torch.inference_mode():
        scores = model(x[:2].cpu())
    model.train()
    wanted = (len(x[:2]), len(data.classes))
    if not isinstance(scores, Tensor) or tuple(scores.shape) != wanted:
        came = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores)
        raise UserError(
            f"model.name: {recipe.model.name} should answer with scores of shape {wanted} to two "
            f"examples, one for each class, but answers with {came}; mend its last layer"
        )
    return model


WHITENED_BY = 5000
"""How many training examples a network looks at that whitens its inputs."""


def loaders_of(
    recipe: Recipe,
    trial: Trial,
    data: DataSet,
    *,
    settings: Training,
    given: Tensor,
    normalize: Normalize,
    fabric: Fabric,
) -> Loaders:
    """Return loaders of a trial, for this process.

    Raises:
        UserError: if the batch size or an augmentation does not fit the data or the devices.
    """
    parts = settings.accumulation_steps * fabric.world_size
    if settings.batch_size > len(data.train):
        raise UserError(
            f"training.batch_size = {settings.batch_size} is more than the "
            f"{len(data.train)} training examples that there are: lower it"
        )
    if settings.batch_size % parts:
        raise UserError(
            f"training.batch_size = {settings.batch_size} cannot be divided by "
            f"{fabric.world_size} devices and "
            f"training.accumulation_steps = {settings.accumulation_steps}: "
            f"choose a multiple of {parts}"
        )
    train, test = data.train.to(fabric.device), data.test.to(fabric.device)
    normalize = normalize.to(fabric.device)
    steps = recipe.data.augment
    if data.brightest != 255 and any(step.name == "hls-jitter" for step in steps):
        raise UserError(
            f"data.augment: hls-jitter is for images with values up to 255, and "
            f"{recipe.data.source} "
            f"has {'none' if data.brightest is None else f'values up to {data.brightest}'}"
        )
    loader = Loader(
        Split(train.inputs, given),
        batch_size=settings.batch_size // parts,
        seed=trial.seed,
        augment=(*training_steps(steps), normalize),
        device=fabric.device,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
    )
    looked_at, tested = (
        Loader(
            part.share(fabric.global_rank, fabric.world_size),
            batch_size=1024,
            seed=trial.seed,
            augment=(*evaluation_steps(steps), normalize),
            device=fabric.device,
            shuffle=False,
        )
        for part in (Split(train.inputs, torch.arange(len(train))), test)
    )
    return Loaders(loader, looked_at, tested)
