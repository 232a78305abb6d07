"""The settings of a study: every field of a recipe, checked by pydantic."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from vicinal.data import MAX_BYTES, TEST_FRACTION, parse_spec
from vicinal.errors import UserError, unknown
from vicinal.escaping import is_utf8, visible
from vicinal.models import check_name, default_layers, mixing_layers
from vicinal.training.arm_titles import titled
from vicinal.training.arms import AnyArm, MixingArm
from vicinal.training.augmentation import Transform
from vicinal.training.metrics import check_metric
from vicinal.training.probe_settings import Probes
from vicinal.training.recipe_errors import error_lines
from vicinal.training.recipe_table import Settings, raise_all


def _checked(check: Callable[[str], object]) -> pydantic.AfterValidator:
    """Return a validator that calls ``check`` and accepts only UTF-8."""

    def validate(value: str) -> str:
        if not is_utf8(value):
            raise ValueError(f"{visible(value)} is not UTF-8. Rename the file or folder.")
        check(value)
        return value

    return pydantic.AfterValidator(validate)


Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
MetricName = Annotated[str, _checked(check_metric)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]


class Data(Settings):
    """The data set."""

    source: Annotated[str, _checked(parse_spec)] = Field(
        description='the data set, such as "cifar10" or "folder:PATH"'
    )
    root: str | None = Field(
        None, description="folder of the data sets; default: $VICINAL_DATA, or data"
    )
    test_fraction: float = Field(
        TEST_FRACTION,
        gt=0,
        lt=1,
        description="fraction held out for testing, if the data set has no test split",
    )
    validation_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="fraction of the training examples that is held out to choose the best epoch",
    )
    train_fraction: float = Field(
        1.0, gt=0, le=1, description="fraction of the training examples that is used"
    )
    skip_bad: bool = Field(
        False, description="skip and report examples that cannot be read, instead of stopping"
    )
    max_bytes: int = Field(MAX_BYTES, ge=1, description="largest size of a decoded file, in bytes")
    augment: Annotated[tuple[Transform, ...], Field(strict=False)] = Field(
        (), description="transforms of training inputs, in this order"
    )


class Model(Settings):
    """The network."""

    name: Annotated[str, _checked(check_name)] = Field(
        description="a network of vicinal, timm:NAME, torchvision:NAME, hf:NAME, or module:callable"
    )


class SGD(Settings):
    """Stochastic gradient descent with momentum; weight decay is added to the gradient."""

    name: Literal["sgd"]
    lr: Positive = Field(description="peak learning rate, for the mean loss of a batch")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum factor")
    nesterov: bool = Field(True, description="use Nesterov momentum")
    weight_decay: NotNegative = Field(0.0, description="weight decay, added to the gradient")


class AdamW(Settings):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101); weight decay is decoupled."""

    name: Literal["adamw"]
    lr: Positive = Field(description="peak learning rate")
    weight_decay: NotNegative = Field(0.0, description="decoupled, multiplied by the learning rate")


class Muon(Settings):
    """Muon (Jordan et al. 2024) for convolutions, whose filters keep their norm; SGD for the rest.

    The momentum of each filter bank is made orthogonal before the step.
    """

    name: Literal["muon"]
    lr: Positive = Field(description="peak learning rate of convolutions")
    momentum: float = Field(0.6, ge=0, lt=1, description="Nesterov momentum of convolutions")
    rest: SGD = Field(description="optimizer of all other parameters")


Optimizer = Annotated[SGD | AdamW | Muon, Field(discriminator="name")]


class OneCycle(Settings):
    """Up to the peak and down to almost zero, along half cosine waves (arXiv 1708.07120)."""

    name: Literal["one-cycle"]
    pct_start: Fraction = Field(0.3, description="fraction of the steps in which the rate rises")
    div_factor: float = Field(
        25.0, ge=1, allow_inf_nan=False, description="the first learning rate is lr / div_factor"
    )


class Cosine(Settings):
    """From the peak to zero along half a cosine wave (arXiv 1608.03983)."""

    name: Literal["cosine"]


class Linear(Settings):
    """From the peak to zero along a straight line."""

    name: Literal["linear"]


class Constant(Settings):
    """The peak at every step."""

    name: Literal["constant"]


class Step(Settings):
    """The peak, multiplied by ``gamma`` at each milestone."""

    name: Literal["step"]
    milestones: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, min_length=1)
    ] = Field(description="epochs after which the learning rate is multiplied by gamma")
    gamma: float = Field(0.1, gt=0, lt=1, description="factor at each milestone")


Schedule = Annotated[OneCycle | Cosine | Linear | Constant | Step, Field(discriminator="name")]


class Training(Settings):
    """How a network is trained."""

    epochs: Count = Field(description="number of epochs")
    batch_size: Count = Field(
        description="examples per optimizer step, over all devices; the last batch may differ"
    )
    accumulation_steps: Count = Field(
        1, description="forward and backward passes that a batch is split into, to save memory"
    )
    optimizer: Optimizer
    schedule: Schedule
    warmup_epochs: NotNegative = Field(
        0.0, description="epochs of a linear rise of the learning rate at the start"
    )
    warmup_start_factor: Fraction = Field(
        0.0, description="fraction of the peak at which that rise starts"
    )
    weight_decay_on: Literal["weights", "all"] = Field(
        "weights", description='"weights" exempts biases and normalization layers from weight decay'
    )
    freeze: Literal["nothing", "backbone"] = Field(
        "nothing", description='"backbone" trains the head of the network alone'
    )
    head_lr_factor: Positive = Field(
        1.0, description="factor of the learning rate of the head of the network"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description='"balanced" weights the loss of a class by one over its frequency'
    )
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle",
        description='"balanced" draws every class equally often: rows of small classes are '
        "repeated, and some of large ones are left out",
    )
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="probability of all dropout layers of the network; default: its own",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="as in torch.nn.CrossEntropyLoss")
    max_grad_norm: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="gradients with a larger norm are clipped"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="decay per step of a moving average of the weights"
    )
    tta: bool = Field(
        False, description="test-time augmentation: average predictions over horizontal flips"
    )
    precision: Literal["float32", "bfloat16", "float16", "float64"] = Field(
        "float32", description="dtype of the computation; weights are float32, or float64"
    )
    channels_last: bool = Field(False, description="use the channels_last memory format")
    compile: bool = Field(False, description="compile the network with torch.compile")
    cuda_graphs: bool = Field(False, description="replay compiled steps as CUDA graphs")
    sync_batch_norm: bool = Field(False, description="synchronize batch norms over devices")
    checkpoint_every: Count = Field(
        1, description="epochs between saved states, each with a checkpoint"
    )
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="device")
    threads: Count | None = Field(None, description="CPU threads; default: all cores")

    @pydantic.model_validator(mode="after")
    def _check_combinations(self) -> "Training":
        problems = []
        if self.optimizer.name == "muon" and self.max_grad_norm is not None:
            problems.append(
                ".max_grad_norm: muon ignores it, since its steps have a fixed norm. Leave it out, "
                "or choose sgd or adamw."
            )
        if self.optimizer.name == "muon" and self.precision == "float16":
            problems.append(
                '.precision: muon cannot undo the loss scaling of "float16". Choose "bfloat16".'
            )
        if self.cuda_graphs and not self.compile:
            problems.append(".cuda_graphs: expected training.compile = true. Set it too.")
        raise_all(problems)
        return self


class Published(Settings):
    """A published row that the report shows next to ours."""

    arm: str = Field(description="the arm that it belongs to")
    epochs: Count = Field(description="number of epochs")
    accuracy: float = Field(ge=0, le=100, description="test accuracy in percent")
    source: str = Field(min_length=1, description="where it was published")


class Shortened(Settings):
    """What a study would have if it had not been cut to fit into ``--minutes``."""

    minutes: Positive = Field(description="the budget")
    seeds: Count = Field(description="number of seeds")
    epochs: Count = Field(description="number of epochs")
    splits: Count = Field(description="number of splits")


class Recipe(Settings):
    """A whole study: arms x conditions x seeds over one data set, network and training."""

    name: Name = Field(description="lowercase letters, digits and dashes; the folder in runs/")
    baseline: str = Field(description="the arm that the others are compared with")
    seeds: int = Field(
        3, ge=1, le=10_000, description="repetitions with different weights, data order and mixing"
    )
    seed: int = Field(
        0, ge=0, lt=1 << 32, description="seed of the test split and of corrupted labels"
    )
    splits: int = Field(
        1, ge=1, le=100, description="train/test splits of the data, each with all seeds"
    )
    task: Literal["auto", "classification", "multi-label", "regression"] = Field(
        "auto", description="what is predicted; by default inferred from the targets"
    )
    metrics: Annotated[tuple[MetricName, ...], Field(strict=False)] = Field(
        (),
        description="metrics to report; the first one is the primary metric; if there are none or "
        "one, those of the task follow",
    )
    equivalence: Positive | None = Field(
        None,
        description="arms that differ by less are the same in practice, in units of the metric "
        "(points for percentages); default: 0.5 points, and none for other metrics",
    )
    corrupted_labels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = Field(
        (0.0,), description="conditions: fractions of the training labels to replace at random"
    )
    data: Data
    model: Model
    training: Training
    arms: Annotated[dict[Name, AnyArm], pydantic.AfterValidator(titled)] = Field(min_length=1)
    probes: Probes = Field(
        default_factory=lambda: Probes.model_validate({}),
        description="measurements of every trained network",
    )
    published: Annotated[tuple[Published, ...], Field(strict=False)] = Field(
        (), description="published rows to show next to ours"
    )
    shortened: Shortened | None = Field(
        None, description="what the study would have without --minutes, for the report"
    )
    known_differences: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="sentences on known differences from the published runs"
    )

    @pydantic.model_validator(mode="after")
    def _set_layers_of_texts(self) -> "Recipe":
        text = parse_spec(self.data.source).name == "text"
        layers = default_layers(self.model.name, text=text)
        for name, arm in self.arms.items():
            if isinstance(arm, MixingArm) and "at" not in arm.model_fields_set:
                self.arms[name] = arm.model_copy(update={"at": layers})
        return self

    @classmethod
    def _problems(cls, values: dict[str, Any]) -> list[str]:
        arms = _tables(values.get("arms"))
        published = values.get("published")
        rows = enumerate(published) if isinstance(published, list | tuple) else ()
        named = {"baseline": values.get("baseline")}
        named |= {f"published.{k}.arm": _tables({0: row}).get(0, {}).get("arm") for k, row in rows}
        problems = [
            f".{field}: {unknown('arm', arm, arms)}"
            for field, arm in named.items()
            if arms and isinstance(arm, str) and arm not in arms
        ]
        fractions = values.get("corrupted_labels")
        if isinstance(fractions, list | tuple):
            counts = Counter(float(one) for one in fractions if isinstance(one, int | float))
            problems += [
                f".corrupted_labels: expected different fractions, got {one} twice."
                for one, count in counts.items()
                if count > 1
            ]
        # A result records the settings of its arm under the name of the arm, next to these names.
        problems += [
            f".arms.{name}: expected a name other than {name}, which has a meaning in results."
            for name in arms
            if name in {"arm", "corrupted", "recipe", "seed", "split", "training"}
        ]
        titles = Counter(repr(arm["title"]) for arm in arms.values() if arm.get("title"))
        problems += [
            f".arms: expected a different title for each arm, got {title} twice."
            for title, count in titles.items()
            if count > 1
        ]
        network = _tables({0: values.get("model")}).get(0, {}).get("name")
        with suppress(UserError):  # the name of the network is invalid
            layers = mixing_layers(network) if isinstance(network, str) else None
            problems += [
                f".arms.{name}.at: {unknown(f'layer of {network}', layer, layers)}"
                for name, arm in arms.items()
                for layer in _list(arm.get("at"))
                if layers is not None and layer not in layers
            ]
        return problems + _training_problems(values.get("training"), arms)

    def training_of(self, arm: str) -> Training:
        """Return how an arm is trained: ``training`` with the changes of the arm."""
        changes = self.arms[arm].training
        return Training.model_validate(merged(self.training.model_dump(), changes))


def _tables(value: Any) -> dict[Any, dict[str, Any]]:
    """Return the tables among values that were not validated yet."""
    found = value.items() if isinstance(value, dict) else ()
    plain = {k: one.model_dump() if isinstance(one, Settings) else one for k, one in found}
    return {k: one for k, one in plain.items() if isinstance(one, dict)}


def _list(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


def _training_problems(training: Any, arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with the changes of arms to a valid ``[training]``."""
    try:
        common = Training.model_validate(training).model_dump()
    except pydantic.ValidationError:
        return []
    problems = []
    for name, arm in arms.items():
        changes = arm.get("training")
        try:
            Training.model_validate(merged(common, changes if isinstance(changes, dict) else {}))
        except pydantic.ValidationError as error:
            lines = error_lines(error, changes or {})
            problems += [f".arms.{name}.training.{line}" for line in lines]
    return problems


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with changes; tables are merged field by field.

    A table with a different ``name`` replaces the old table entirely.

    Example:
        >>> settings = {"lr": 1, "schedule": {"name": "step", "milestones": [5]}}
        >>> merged(settings, {"schedule": {"milestones": [8]}})
        {'lr': 1, 'schedule': {'name': 'step', 'milestones': [8]}}
        >>> merged(settings, {"schedule": {"name": "cosine"}})
        {'lr': 1, 'schedule': {'name': 'cosine'}}
    """
    result = dict(settings)
    for field, value in changes.items():
        old = result.get(field)
        same_kind = (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        )
        result[field] = merged(old, value) if same_kind else value  # type: ignore[arg-type]
    return result
