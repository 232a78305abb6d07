"""Scores of a saved network on a data set: how often, how surely and where it errs."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import pydantic
import torch
from torch import Tensor

from vicinal.data import CenterCrop, DataSet, Loader, Normalize, Split
from vicinal.data.loader import dead_workers_named
from vicinal.errors import UserError
from vicinal.models import NETWORKS, build, imported_module
from vicinal.training.checkpoints import check_weights, put_weights, read_tree
from vicinal.training.engine import engine
from vicinal.training.evaluation import Answers, answers, score_of

BINS = 15
"""Of the calibration error, as in Guo et al. (https://arxiv.org/abs/1706.04599)."""


class Division(pydantic.BaseModel):
    """How a data set that comes in one part was divided; see ``vicinal.data.load``."""

    model_config = pydantic.ConfigDict(frozen=True)

    seed: int
    test_fraction: float


class About(pydantic.BaseModel):
    """What a checkpoint says of its network, and of what it was trained on.

    Args:
        network: its name, as in a recipe.
        shape: of one example, after cropping.
        classes: their names, in the order of the scores.
        crops: sizes of the center crops of its tests.
        data: what named the data set.
        root: the folder that it was looked for under; None for the default.
        skip_bad: whether examples that cannot be read were skipped.
        division: how a data set without a test split was divided.
        preparation: how raw examples became inputs; see ``vicinal.data.DataSet``.
        origin: fingerprints of data and network; see ``vicinal.training.origin``.
    """

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    network: str
    shape: tuple[pydantic.PositiveInt, ...]
    classes: tuple[str, ...]
    crops: tuple[pydantic.PositiveInt, ...]
    precision: Literal["float32", "bfloat16", "float16", "float64"]
    channels_last: bool
    tta: bool
    data: str
    root: str | None
    skip_bad: bool
    division: Division
    preparation: dict[str, Any]
    origin: dict[str, dict[str, Any]]

    @pydantic.field_validator("origin")
    @classmethod
    def _sources_are_hashes(cls, origin: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        pydantic.TypeAdapter(dict[str, str]).validate_python(
            origin.get("network", {}).get("source", {})
        )
        return origin


class _Inputs(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    mean: Tensor
    std: Tensor


class _Saved(pydantic.BaseModel):
    """A checkpoint, whole; a file from elsewhere can hold anything."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    about: About
    inputs: _Inputs
    weights: dict[str, Tensor]

    @pydantic.model_validator(mode="after")
    def _inputs_fit(self) -> "_Saved":
        shape = self.about.shape
        for tensor in (self.inputs.mean, self.inputs.std):
            if torch.broadcast_shapes(tensor.shape, shape) != shape or not tensor.isfinite().all():
                raise ValueError("mean and std do not fit the shape of an example")
        return self


class Pair(NamedTuple):
    """Examples of class ``true`` that were taken for class ``answered``."""

    true: str
    answered: str
    examples: int


class Scores(NamedTuple):
    """What was measured. Shares are fractions, losses are in nats.

    Args:
        examples: how many there were.
        accuracy: share whose class got the highest score.
        majority: share of the most frequent class among them, the accuracy of a constant answer.
        top5: share whose class is among the five highest; None with at most five classes.
        loss: mean negative log-likelihood.
        calibration_error: expected calibration error, of 15 bins of equal width.
        worst: the most frequent confusions, the worst first.
    """

    examples: int
    accuracy: float
    majority: float
    top5: float | None
    loss: float
    calibration_error: float
    worst: list[Pair]


def read_about(path: Path) -> About:
    """Return what a checkpoint says of its network.

    Raises:
        UserError: if the file is no checkpoint of a network for use.
    """
    return _opened(path)[0]


def score_checkpoint(
    path: Path,
    data: DataSet,
    *,
    part: str = "test",
    accelerator: str = "auto",
    pairs: int = 5,
    allow_import: bool = False,
) -> Scores:
    """Measure a network that ``vicinal train`` or ``vicinal study`` has saved.

    Inputs are prepared, and answers worked out, as in the tests while it was trained: the same
    examples give the same accuracy.

    Args:
        path: of the checkpoint.
        data: with the classes that the network knows, in any order.
        part: of the data, ``"test"``, ``"train"`` or ``"validation"``.
        accelerator: device.
        pairs: how many confusions are wanted.
        allow_import: whether a module that the checkpoint names may be imported, which runs code.

    Raises:
        UserError: if the file is no checkpoint, or is of another network than it says, if the
            network has to be imported and may not, or if the data have other classes, other shapes
            or no such part.
    """
    about, normalize, weights = _opened(path)
    module = imported_module(about.network)
    if module is not None and not allow_import:
        raise UserError(
            f"{path} names a network to import ({about.network!r}), and importing {module} runs "
            "code; if you trust whoever wrote the checkpoint and that module, allow it with "
            "--allow-import"
        )
    rows = data.splits.get(part)
    if rows is None:
        raise UserError(f"the data have no part {part!r}; they have: {', '.join(data.splits)}")
    targets = _targets_as(about.classes, data.classes, rows.targets)
    if about.network in NETWORKS:
        # Shapes alone, since a file may ask for a network that takes all the memory.
        with torch.device("meta"):
            shapes = build(about.network, shape=about.shape, classes=len(about.classes))
        check_weights(shapes, weights, str(path))
    model = build(about.network, shape=about.shape, classes=len(about.classes))
    put_weights(model, weights, str(path))
    fabric = engine(accelerator=accelerator, precision=about.precision)
    model.to(fabric.device, torch.float64 if about.precision == "float64" else torch.float32)
    if about.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = Loader(
        Split(rows.inputs, targets),
        batch_size=1024,
        seed=0,
        augment=(*(CenterCrop(size) for size in about.crops), normalize.to(fabric.device)),
        device=fabric.device,
        shuffle=False,
    )
    seen = _shape(rows, about)
    if seen != about.shape:
        raise UserError(
            f"{path} takes examples of shape {about.shape}, and the data have {seen}; choose data "
            "such as it was trained on"
        )
    with dead_workers_named():
        given = answers(
            model,
            loader.epoch(0),
            fabric=fabric,
            tta=about.tta,
            channels_last=about.channels_last,
        )
    return scores_of(given, about.classes, pairs=pairs)


def _opened(path: Path) -> tuple[About, Normalize, dict[str, Tensor]]:
    tree = read_tree(path)
    try:
        saved = _Saved.model_validate(tree)
    except (RuntimeError, pydantic.ValidationError) as error:
        raise UserError(
            f"{path} holds no network for use, or was written by an earlier version; name a "
            "checkpoint.safetensors of this one"
        ) from error
    normalize = Normalize(saved.inputs.mean, saved.inputs.std)
    return saved.about, normalize, saved.weights


def scores_of(given: Answers, classes: tuple[str, ...], *, pairs: int = 5) -> Scores:
    """Return the scores of answers.

    Args:
        given: scores ``(n, classes)`` and int64 targets ``(n,)``.
        classes: their names.
        pairs: how many confusions are wanted.

    Example:
        >>> given = Answers(torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))
        >>> scores_of(given, ("cat", "dog")).worst
        [Pair(true='dog', answered='cat', examples=1)]
    """
    from torchmetrics.functional.classification import (
        multiclass_calibration_error,
        multiclass_confusion_matrix,
    )

    scores, targets = given.scores.double(), given.targets
    count = len(classes)
    plain = score_of(given)
    # torchmetrics works out this share in float32: 0.9307 would be told as 0.9307000041.
    among = (scores.topk(min(5, count)).indices == targets[:, None]).any(1)
    confused = multiclass_confusion_matrix(scores, targets, count).fill_diagonal_(0)
    worst = confused.flatten().sort(descending=True, stable=True)
    return Scores(
        examples=len(targets),
        accuracy=plain.accuracy,
        majority=int(targets.bincount().max()) / len(targets),
        top5=float(among.double().mean()) if count > 5 else None,
        loss=plain.loss,
        calibration_error=float(
            multiclass_calibration_error(scores.softmax(1), targets, count, n_bins=BINS)
        ),
        worst=[
            Pair(classes[place // count], classes[place % count], number)
            for number, place in zip(
                worst.values[:pairs].tolist(), worst.indices[:pairs].tolist(), strict=True
            )
            if number
        ],
    )


def _shape(part: Split, about: About) -> tuple[int, ...]:
    shape = tuple(part.inputs.shape[1:])
    return (*shape[:-2], about.crops[-1], about.crops[-1]) if about.crops else shape


def _targets_as(known: tuple[str, ...], classes: tuple[str, ...], targets: Tensor) -> Tensor:
    """Return targets that count the classes as the network does."""
    if not classes:
        raise UserError("the data have real-valued targets, and a network is scored on classes")
    missing = [name for name in classes if name not in known]
    if missing:
        raise UserError(
            f"the data have {len(classes)} classes, of which the network does not know "
            f"{len(missing)}, such as {missing[0]!r}; it knows: {', '.join(known[:20])}"
        )
    return torch.tensor([known.index(name) for name in classes], dtype=torch.int64)[targets]
