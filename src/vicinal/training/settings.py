"""The settings of a study: every field with its unit, checked by pydantic."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from vicinal.data import MAX_BYTES, TEST_FRACTION, parse_spec
from vicinal.escaping import is_utf8, visible
from vicinal.models import check_name
from vicinal.training.augment import Augment


def _checked(check: Callable[[str], object]) -> pydantic.AfterValidator:
    """Return a validator that calls ``check`` and accepts only UTF-8."""

    def validate(value: str) -> str:
        if not is_utf8(value):
            raise ValueError(
                f"{visible(value)} has bytes that are not UTF-8, which recipes cannot hold; rename "
                "the file or folder"
            )
        check(value)
        return value

    return pydantic.AfterValidator(validate)


Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]


class Settings(pydantic.BaseModel):
    """What all tables of a recipe have in common."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=True, ser_json_inf_nan="strings"
    )


class Data(Settings):
    """What is learned."""

    source: Annotated[str, _checked(parse_spec)] = Field(
        description='what names a data set, such as "cifar10" or "folder:PATH"'
    )
    root: str | None = Field(None, description="folder to look for it under; $VICINAL_DATA or data")
    test_fraction: float = Field(
        TEST_FRACTION,
        gt=0,
        lt=1,
        description="share of the examples to test on, of a set that comes in one",
    )
    skip_bad: bool = Field(
        False, description="skip and report examples that cannot be read, instead of stopping"
    )
    max_bytes: int = Field(
        MAX_BYTES, ge=1, description="most bytes that one file may take once it is decoded"
    )
    augment: Annotated[tuple[Augment, ...], Field(strict=False)] = Field(
        (), description="what is done to training inputs, in this order"
    )


class Model(Settings):
    """What learns it."""

    name: Annotated[str, _checked(check_name)] = Field(
        description="short name of a network, timm:NAME, torchvision:NAME, or a path"
    )


class SGD(Settings):
    """Stochastic gradient descent with momentum; weight decay is added to the gradient."""

    name: Literal["sgd"]
    lr: Rate = Field(description="peak learning rate, per step, for the mean loss of a batch")
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the last step that is kept")
    nesterov: bool = Field(True, description="whether momentum looks ahead")
    weight_decay: Decay = Field(0.0, description="times the weights, added to the gradient")


class AdamW(Settings):
    """Loshchilov and Hutter (arXiv 1711.05101); weight decay is decoupled, times lr."""

    name: Literal["adamw"]
    lr: Rate = Field(description="peak learning rate, per step")
    weight_decay: Decay = Field(0.0, description="decoupled, multiplied by the learning rate")


class Muon(Settings):
    """Jordan et al. 2024: the momentum of each filter bank is made orthogonal before the step.

    For convolutions, whose filters keep their size; what else can be learned is left to SGD.
    """

    name: Literal["muon"]
    lr: Rate = Field(description="peak learning rate of convolutions, per step")
    momentum: float = Field(0.6, ge=0, lt=1, description="of convolutions, with Nesterov")
    rest: SGD = Field(description="for everything but convolutions")


Optimizer = Annotated[SGD | AdamW | Muon, Field(discriminator="name")]


class OneCycle(Settings):
    """Up to the peak and down to almost zero, along half cosine waves (arXiv 1708.07120)."""

    name: Literal["one-cycle"]
    pct_start: Fraction = Field(0.3, description="fraction of the steps in which the rate rises")
    div_factor: float = Field(
        25.0, ge=1, allow_inf_nan=False, description="the first learning rate is lr / div_factor"
    )


class Cosine(Settings):
    """From the peak to nothing along half a cosine wave (arXiv 1608.03983)."""

    name: Literal["cosine"]


class Linear(Settings):
    """From the peak to nothing along a straight line."""

    name: Literal["linear"]


class Step(Settings):
    """The peak, divided at each milestone."""

    name: Literal["step"]
    milestones: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, min_length=1)
    ] = Field(description="numbers of epochs after which the rate is multiplied by gamma")
    gamma: float = Field(0.1, gt=0, lt=1, description="factor at each milestone")


Schedule = Annotated[OneCycle | Cosine | Linear | Step, Field(discriminator="name")]


class Training(Settings):
    """How it is learned."""

    epochs: Count = Field(description="passes over the training examples")
    batch_size: Count = Field(
        description="examples per step, of all devices together; the last may be smaller"
    )
    accumulation_steps: Count = Field(
        1, description="forward and backward passes that a batch is split into, to save memory"
    )
    optimizer: Optimizer
    schedule: Schedule
    warmup_epochs: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="epochs of a straight rise from nothing"
    )
    weight_decay_on: Literal["weights", "all"] = Field(
        "weights", description='"weights" exempts norms and biases from weight decay'
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share spread over all classes")
    max_grad_norm: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="gradients with a larger norm are clipped"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="decay per step of the average that is tested and kept"
    )
    tta: bool = Field(
        False, description="test-time augmentation: average predictions over horizontal flips"
    )
    precision: Literal["float32", "bfloat16", "float16", "float64"] = Field(
        "float32", description="of what is computed; weights stay float32 (or float64)"
    )
    channels_last: bool = Field(False, description="whether channels lie together in memory")
    compile: bool = Field(False, description="whether torch.compile makes one program of a network")
    cuda_graphs: bool = Field(False, description="whether a compiled step is replayed as a whole")
    sync_batch_norm: bool = Field(False, description="whether norms see the batch of all devices")
    checkpoint_every: Count = Field(1, description="epochs from one checkpoint to the next")
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="device")
    threads: Count | None = Field(None, description="CPU threads; all cores where left out")

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> "Training":
        problems = []
        if self.optimizer.name == "muon" and self.max_grad_norm is not None:
            problems.append(
                "training.max_grad_norm does nothing for muon, whose steps have a fixed norm: "
                "leave it out, or choose sgd or adamw"
            )
        if self.optimizer.name == "muon" and self.precision == "float16":
            problems.append(
                'training.precision = "float16" scales the loss, which muon does not know of: '
                'choose "bfloat16"'
            )
        if self.cuda_graphs and not self.compile:
            problems.append("training.cuda_graphs is for compiled networks: set training.compile")
        if problems:
            raise ValueError("\n".join(problems))  # one problem a line
        return self


class PlainArm(Settings):
    """An arm without mixing: empirical risk minimization."""

    title: str = Field(min_length=1, description="what tables and pictures call it")
    policy: Literal["none"]
    training: dict[str, Any] = Field({}, description="what differs from [training] in this arm")


class MixUpArm(Settings):
    """An arm with ``vicinal.MixUp``."""

    title: str = Field(min_length=1, description="what tables and pictures call it")
    policy: Literal["mixup"]
    alpha: float = Field(ge=0, description="lam ~ Beta(alpha, alpha); inf is half and half")
    mix_rate: float = Field(1.0, ge=0, le=1, description="fraction of a batch that is mixed")
    per: Literal["batch", "pair", "example"] = Field("batch", description="who shares a lam")
    pairing: Literal["shuffle", "halves"] = Field(
        "shuffle", description='who meets whom; "halves" is the MXNet layer\'s way, with per pair'
    )
    at: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        ("input",),
        description='layers to mix after, one drawn for each step: "input" or module names',
    )
    unmixed_epochs_at_start: int = Field(0, ge=0, description="epochs at the start without mixing")
    unmixed_epochs_at_end: int = Field(0, ge=0, description="epochs at the end without mixing")
    training: dict[str, Any] = Field({}, description="what differs from [training] in this arm")


Arm = Annotated[PlainArm | MixUpArm, Field(discriminator="policy")]


class Published(Settings):
    """A row that others have published, to stand beside ours."""

    arm: str = Field(description="which arm it is about")
    epochs: Count = Field(description="passes over the training examples")
    accuracy: float = Field(ge=0, le=100, description="of the test part, in percent")
    source: str = Field(min_length=1, description="where it stands")


class Recipe(Settings):
    """A study, whole: arms x conditions x seeds over one data set, network and training."""

    name: Name = Field(description="small letters, digits and dashes; names the folder in runs/")
    baseline: str = Field(description="the arm that the others are compared with")
    seeds: int = Field(
        3, ge=1, le=10_000, description="repetitions: weights, order of the data, mixing"
    )
    seed: int = Field(
        0, ge=0, lt=1 << 32, description="draws the test part and the corrupted labels"
    )
    corrupted_labels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = Field(
        (0.0,), description="conditions: fractions of the training labels replaced by random ones"
    )
    data: Data
    model: Model
    training: Training
    arms: dict[Name, Arm] = Field(min_length=1)
    published: Annotated[tuple[Published, ...], Field(strict=False)] = Field(
        (), description="rows of others to stand beside ours"
    )
    known_differences: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="sentences on what is known to differ from the published runs"
    )

    def training_of(self, arm: str) -> Training:
        """Return how an arm is trained: ``training``, and what differs in the arm."""
        changes = self.arms[arm].training
        return Training.model_validate(merged(self.training.model_dump(), changes))


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others in their place; tables are merged field by field.

    A table that changes its ``name`` is another thing, and takes the place of the whole table.

    Example:
        >>> there = {"lr": 1, "schedule": {"name": "step", "milestones": [5]}}
        >>> merged(there, {"schedule": {"milestones": [8]}})
        {'lr': 1, 'schedule': {'name': 'step', 'milestones': [8]}}
        >>> merged(there, {"schedule": {"name": "cosine"}})
        {'lr': 1, 'schedule': {'name': 'cosine'}}
    """
    result = dict(settings)
    for field, value in changes.items():
        there = result.get(field)
        both = isinstance(there, Mapping) and isinstance(value, Mapping)
        if both and value.get("name", there.get("name")) == there.get("name"):  # type: ignore[union-attr]
            result[field] = merged(there, value)  # type: ignore[arg-type]
        else:
            result[field] = value
    return result
