"""Evaluation of a checkpoint on a data set: ``vicinal score``."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vicinal.data import MAX_BYTES, DataSet, Loader, Split, load, parse_spec
from vicinal.data.loader import dead_workers_named
from vicinal.errors import UserError
from vicinal.models import build, check_name, imported_module
from vicinal.training.checkpoints import Checkpoint, check_weights, load_weights, read_checkpoint
from vicinal.training.devices import make_fabric
from vicinal.training.evaluation import Predictions, mean_loss, predict
from vicinal.training.origin import data_facts, origin_differences, source_hashes
from vicinal.training.recipe_warnings import note_lines
from vicinal.training.trial_setup import center_crops, tested_shape

BINS = 15
"""Of the calibration error, as in Guo et al. (https://arxiv.org/abs/1706.04599)."""

_RUN_CODE = ("import", "hf", "torchvision")
"""Sources of other libraries, which can run code that lies next to the data."""


class Confusion(NamedTuple):
    """Examples of class ``true`` that were predicted as class ``predicted``."""

    true: str
    predicted: str
    examples: int


class Scores(NamedTuple):
    """The scores of a network; accuracies are fractions, the loss is in nats.

    Args:
        examples: number of examples.
        accuracy: fraction of correct predictions.
        majority: fraction of the most frequent class, the accuracy of a constant prediction.
        top5: fraction whose class is among the five largest logits; None for up to five classes.
        loss: mean negative log-likelihood.
        calibration_error: expected calibration error, with 15 bins of equal width.
        worst: the most frequent confusions, in descending order.
    """

    examples: int
    accuracy: float
    majority: float
    top5: float | None
    loss: float
    calibration_error: float
    worst: list[Confusion]


def score_saved(
    path: Path,
    *,
    source: str | None = None,
    split: str = "test",
    root: Path | None = None,
    seed: int | None = None,
    test_fraction: float | None = None,
    skip_bad: bool = False,
    max_bytes: int = MAX_BYTES,
    accelerator: str = "auto",
    confusions: int = 5,
    allow_import: bool = False,
    log: Callable[[str], None] = lambda _sentence: None,
) -> Scores:
    """Score a checkpoint on a data set, whose examples are prepared as during training.

    The checkpoint has the columns, categories and statistics of a table, the size of images, and
    the sampling rate of recordings. It also has the defaults of ``source``, ``root``, ``seed`` and
    ``test_fraction``: those that were used for training.

    Args:
        path: the checkpoint.
        source: the data set.
        split: ``"test"``, ``"train"`` or ``"validation"``.
        root: folder of the data sets.
        seed: of the train/test split.
        test_fraction: fraction held out for testing.
        skip_bad: skip examples that cannot be read.
        max_bytes: largest size of a decoded file, in bytes.
        accelerator: the device.
        confusions: how many of the most frequent confusions to return.
        allow_import: import what the checkpoint names, which runs its code.
        log: reports to the user, such as notes on the data.

    Raises:
        UserError: if the checkpoint cannot be read or needs an import that is not allowed, if the
            data cannot be prepared as during training, or if the data or the source code of the
            network have changed since then.
    """
    info = read_checkpoint(path).info
    recorded = info.recipe.data
    own_split = (info.recipe.seed, recorded.test_fraction)
    seed = own_split[0] if seed is None else seed
    test_fraction = own_split[1] if test_fraction is None else test_fraction
    named = source or recorded.source
    if source is None and parse_spec(named).name in _RUN_CODE and not allow_import:
        raise UserError(
            f"{path} was trained on {named!r}, and loading that can run code. Choose the data with "
            "--data, or, if you trust the author of the checkpoint, pass --allow-import."
        )
    data = load(
        named,
        root=root or (recorded.root if source is None else None),
        seed=seed,
        test_fraction=test_fraction,
        skip_bad=skip_bad or (source is None and recorded.skip_bad),
        max_bytes=max_bytes,
        preparation=info.preparation,
    )
    for sentence in note_lines(data):
        log(sentence)
    both = data.preparation, info.preparation
    found, expected = (json.dumps(dict(one), sort_keys=True) for one in both)
    if info.preparation and found != expected:
        raise UserError(
            f"{named}: expected data like those that {path} was trained on ({recorded.source}), "
            "got data that cannot be prepared in the same way. Choose other data."
        )
    if source is None and (seed, test_fraction) == own_split:
        both = info.origin["data"], data_facts(data, info.recipe.task)
        if changed := origin_differences(*({"data": {split: one.get(split)}} for one in both)):
            raise UserError(
                f"{named} has changed since {path} was trained ({changed}). To score it anyway, "
                f"pass --data {named}."
            )
    return score_checkpoint(
        path,
        data,
        split=split,
        accelerator=accelerator,
        confusions=confusions,
        allow_import=allow_import,
    )


def score_checkpoint(
    path: Path,
    data: DataSet,
    *,
    split: str = "test",
    accelerator: str = "auto",
    confusions: int = 5,
    allow_import: bool = False,
) -> Scores:
    """Score a checkpoint on a data set that is prepared as during training.

    The same examples give the same accuracy as during training. The arguments are those of
    ``score_saved``; the classes of the data may be in any order.

    Raises:
        UserError: if the file is not a checkpoint, needs an import that is not allowed, has weights
            of a different network than it says, or does not fit the data.
    """
    checkpoint = read_checkpoint(path)
    info, recorded = checkpoint.info, checkpoint.info.recipe.data
    settings = info.recipe.training_of(info.arm)
    rows = data.splits.get(split)
    if rows is None:
        raise UserError(f"--split: expected one of {', '.join(data.splits)}, got {split!r}.")
    targets = _targets_as(info.classes, data.classes, rows.targets)
    model = _build(path, checkpoint, allow_import=allow_import)
    fabric = make_fabric(accelerator=accelerator, precision=settings.precision)
    model.to(fabric.device, torch.float64 if settings.precision == "float64" else torch.float32)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = Loader(
        Split(rows.inputs, targets),
        batch_size=1024,
        seed=0,
        augment=(*center_crops(recorded), checkpoint.inputs.to(fabric.device)),
        device=fabric.device,
        shuffle=False,
    )
    if (shape := tested_shape(recorded, rows)) != info.shape:
        raise UserError(
            f"{path}: expected examples of shape {info.shape}, got {shape}. Choose data like those "
            "that it was trained on."
        )
    with dead_workers_named():
        predictions = predict(model, loader.epoch(0), fabric=fabric, settings=settings)
    return scores_of(predictions, info.classes, confusions=confusions)


def _build(path: Path, checkpoint: Checkpoint, *, allow_import: bool) -> nn.Module:
    """Return the network of a checkpoint, with its weights."""
    info, name = checkpoint.info, checkpoint.info.recipe.model.name
    module = imported_module(name)
    if module is not None and not allow_import:
        raise UserError(
            f"{path} uses the network {name!r}, and importing {module} runs code. If you "
            "trust the author of the checkpoint and that module, pass --allow-import."
        )
    make = partial(
        build,
        name,
        shape=checkpoint.network_shape,
        classes=len(info.classes),
        initial_weights=False,
        config=info.network,
    )
    if check_name(name).library in ("", "hf"):
        # Compare shapes first: a hostile file may describe a network that needs all the memory.
        with torch.device("meta"):
            shapes = make()
        check_weights(shapes, checkpoint.weights, str(path))
    model = make()
    # After the import, since only then its files are known.
    old, new = info.origin["network"]["source"], source_hashes(name)
    if changed := origin_differences(*({"network": {"source": one}} for one in (old, new))):
        raise UserError(
            f"{path} was trained with different source code of its network ({changed}), so its "
            "scores would be meaningless. Restore the code, or train again."
        )
    load_weights(model, checkpoint.weights, str(path))
    return model


def _targets_as(known: tuple[str, ...], classes: tuple[str, ...], targets: Tensor) -> Tensor:
    """Return targets as indices of the classes of the network."""
    if not classes:
        raise UserError(
            "--data: expected a data set with classes, since the network is a classifier, got "
            "real-valued targets. Choose another data set."
        )
    missing = [name for name in classes if name not in known]
    if missing:
        raise UserError(
            f"expected data with classes of the network ({', '.join(known[:20])}), got "
            f"{len(missing)} others of {len(classes)}, such as {missing[0]!r}. Choose other data."
        )
    return torch.tensor([known.index(name) for name in classes], dtype=torch.int64)[targets]


def scores_of(predictions: Predictions, classes: tuple[str, ...], *, confusions: int = 5) -> Scores:
    """Return the scores of predictions.

    Args:
        predictions: logits ``(n, classes)`` and int64 targets ``(n,)``.
        classes: their names.
        confusions: how many of the most frequent confusions to return.

    Example:
        >>> predictions = Predictions(torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))
        >>> scores_of(predictions, ("cat", "dog")).worst
        [Confusion(true='dog', predicted='cat', examples=1)]
    """
    from torchmetrics.functional.classification import (
        multiclass_calibration_error,
        multiclass_confusion_matrix,
    )

    logits, targets = predictions.outputs.double(), predictions.targets
    count = len(classes)
    # torchmetrics computes this fraction in float32: 0.9307 would become 0.9307000041.
    in_top5 = (logits.topk(min(5, count)).indices == targets[:, None]).any(1)
    confused = multiclass_confusion_matrix(logits, targets, count).fill_diagonal_(0)
    worst = confused.flatten().sort(descending=True, stable=True)
    return Scores(
        examples=len(targets),
        accuracy=predictions.metric("accuracy", "classification"),
        majority=int(targets.bincount().max()) / len(targets),
        top5=float(in_top5.double().mean()) if count > 5 else None,
        loss=mean_loss(predictions, F.cross_entropy),
        calibration_error=float(
            multiclass_calibration_error(logits.softmax(1), targets, count, n_bins=BINS)
        ),
        worst=[
            Confusion(classes[index // count], classes[index % count], number)
            for number, index in zip(
                worst.values[:confusions].tolist(), worst.indices[:confusions].tolist(), strict=True
            )
            if number
        ],
    )
