"""What a trial needs before training: data, labels, loaders and a network."""

import math
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vicinal.data import (
    TRANSFORMS,
    CenterCrop,
    DataSet,
    Loader,
    Normalize,
    Note,
    Split,
    corrupt_labels,
    load,
    normalization_of,
)
from vicinal.errors import TrialError, UserError
from vicinal.import_path import one_line
from vicinal.models import FastCNN, HuggingFace, build, input_format, parse_name, set_dropout
from vicinal.training.metrics import METRICS, check_metrics, constant_value, primary_metric
from vicinal.training.settings import Data, Recipe
from vicinal.training.task import Task, constant_outputs, task_of
from vicinal.training.trial_result import Trial, condition_name

BATCH = 1024
"""The most examples in a batch of an evaluation: the last digits of outputs depend on it."""

_ELEMENTS = 1 << 24
"""The most values in such a batch, so that 224x224 images need less than 2 GB in a ResNet-50."""

_PER_TOKEN = 256
"""As how many values a token counts."""

_NORMALIZATIONS: "weakref.WeakKeyDictionary[Split, Normalize]" = weakref.WeakKeyDictionary()

WHITENING_EXAMPLES = 5000
"""About how many training examples the whitening layer of a network is fitted to."""


class Loaders(NamedTuple):
    """The loaders of a trial.

    Args:
        train: loader of random batches for training.
        memorized: batches of the training inputs without augmentation; targets are row numbers.
        test: those of the test split.
        few: those of the test split, to try a network; files are read two at a time.
        validation: those of the validation split, if there is one.
        labels: to train with, a fraction of which is corrupted.
        normalize: the last transform of all loaders.
    """

    train: Loader
    memorized: Loader
    test: Loader
    few: Loader
    validation: Loader | None
    labels: Tensor
    normalize: Normalize


def evaluation_batch(split: Split) -> int:
    """Return how many examples of a split are evaluated at a time: fewer if they are large.

    Example:
        >>> large = torch.empty(1, 3, 224, 224, dtype=torch.uint8)
        >>> [evaluation_batch(Split(x, torch.zeros(1))) for x in (large, torch.zeros(1, 4))]
        [111, 1024]
    """
    each = math.prod(split.inputs.shape[1:])
    each *= _PER_TOKEN if split.inputs.dtype == torch.int64 else 1
    return min(BATCH, max(16, _ELEMENTS // max(each, 1)))


def load_data(
    recipe: Recipe,
    on_skipped: Callable[[str, Sequence[str]], None],
    *,
    split: int = 0,
    data: DataSet | None = None,
) -> DataSet:
    """Load the data set of a recipe.

    Args:
        recipe: the recipe.
        split: which of its splits.
        data: the data set, if it was read already.
        on_skipped: is called with the name of each split that has skipped examples, and a
            sentence for each of them.

    Raises:
        UserError: if the data set cannot be loaded, or does not fit the task or the metrics.
    """
    if data is None:
        fold = (split, recipe.splits) if recipe.splits > 1 else None
        data = read_data(recipe.data, seed=recipe.seed, fold=fold)
    for name, rows in data.splits.items():
        if rows.skipped:
            on_skipped(name, rows.skipped)
    check_task(recipe, data)
    return replace(data, notes=(*data.notes, *network_notes(recipe, data)))


def check_task(recipe: Recipe, data: DataSet) -> None:
    """Raise ``UserError`` unless a data set fits the task, the metrics and the corrupted labels."""
    task = task_of(data, recipe.task)
    check_metrics(recipe.metrics, task.name, task.outputs)
    _check_defined(primary_metric(recipe.metrics, task.name), task, data)
    if any(recipe.corrupted_labels):
        _check_classes(task)


def read_data(settings: Data, *, seed: int, fold: tuple[int, int] | None = None) -> DataSet:
    """Load a data set with the settings of a recipe; see ``vicinal.data.load``."""
    return load(
        settings.source,
        root=settings.root,
        test_fraction=settings.test_fraction,
        seed=seed,
        skip_bad=settings.skip_bad,
        max_bytes=settings.max_bytes,
        fold=fold,
        validation_fraction=settings.validation_fraction,
        train_fraction=settings.train_fraction,
    )


def _check_defined(metric: str, task: Task, data: DataSet) -> None:
    """Raise if the primary metric is undefined, such as AUROC with one class only."""
    for name, rows in data.splits.items():
        targets = rows.targets.cpu()
        if bool((targets != targets[:1]).any(0).all()):
            continue
        constant = constant_outputs(task, data.train.targets)
        if not math.isfinite(constant_value(metric, constant, targets.numpy(), task.name)):
            raise UserError(
                f"metrics: {METRICS[metric].title} is undefined, since all targets of the {name} "
                "split are the same. Choose another metric, or other data."
            )


def _check_classes(task: Task) -> None:
    if task.name != "classification":
        raise UserError(
            f"corrupted_labels: expected a classification task, got {task.name}. Remove it."
        )


def training_labels(recipe: Recipe, corrupted: float, data: DataSet) -> Tensor:
    """Return the labels to train with, a fraction of which is corrupted.

    Raises:
        UserError: if that fraction changes no label.
    """
    true = data.train.targets
    if not corrupted:
        return true
    _check_classes(task_of(data, recipe.task))
    given = corrupt_labels(
        true, rate=corrupted, num_classes=len(data.classes), seed=recipe.seed
    ).labels
    if torch.equal(given, true):
        raise UserError(
            f"corrupted_labels: {condition_name(corrupted)} changes none of the {len(true)} "
            "training labels. Choose a larger fraction, or 0 for the true labels."
        )
    return given


@contextmanager
def own_settings_named(recipe: Recipe, arm: str) -> Iterator[None]:
    """Name the arm in an error about a setting of ``[training]`` that the arm changes."""
    try:
        yield
    except TrialError:  # the report names its arm
        raise
    except UserError as error:
        named = re.findall(r"training\.(\w+)", str(error))
        if not recipe.arms[arm].training.keys() & {*named}:
            raise
        own = str(error).startswith("training.") and named[0] in recipe.arms[arm].training
        raise UserError(f"arms.{arm}{'.' if own else ': '}{error}") from error


def center_crops(settings: Data) -> list[CenterCrop]:
    """Return the transforms of evaluation: a crop to the size that training uses, if it crops.

    Example:
        >>> from vicinal.training.augmentation import RandomCrop
        >>> augment = (RandomCrop(name="random-crop", size=28),)
        >>> center_crops(Data(source="cifar10", augment=augment))
        [CenterCrop(size=28)]
    """
    sizes = [size for one in settings.augment if (size := getattr(one, "size", None)) is not None]
    return [CenterCrop(size) for size in sizes[-1:]]


def tested_shape(settings: Data, test: Split) -> tuple[int, ...]:
    """Return the shape of one example as the network gets it in an evaluation."""
    return cropped(test.inputs.shape[1:], settings)


def cropped(shape: Sequence[int], settings: Data) -> tuple[int, ...]:
    """Return the shape of one example after the crop of an evaluation."""
    for crop in center_crops(settings):
        shape = (*shape[:-2], crop.size, crop.size)
    return tuple(shape)


def make_loaders(
    recipe: Recipe,
    trial: Trial,
    data: DataSet,
    task: Task,
    fabric: Fabric,
) -> Loaders:
    """Return the loaders of this process.

    Raises:
        UserError: if the batch size, an augmentation or the fraction of corrupted labels does not
            fit the data or the devices.
    """
    settings = recipe.training_of(trial.arm)
    labels = training_labels(recipe, trial.corrupted, data)
    batch, steps = settings.batch_size, settings.accumulation_steps
    if batch > len(data.train):
        raise UserError(
            f"training.batch_size: expected at most {len(data.train)}, the number of training "
            f"examples, got {batch}. Lower it."
        )
    if batch % (steps * fabric.world_size):
        raise UserError(
            f"training.batch_size: expected a multiple of {steps * fabric.world_size} "
            f"(training.accumulation_steps = {steps} times {fabric.world_size} devices), "
            f"got {batch}. Change one of them."
        )
    augment = (*recipe.data.augment, *recipe.arms[trial.arm].augment)
    where = {one.name: f"arms.{trial.arm}.augment" for one in recipe.arms[trial.arm].augment}
    where |= {one.name: "data.augment" for one in recipe.data.augment}
    flip = where.get("random-horizontal-flip")
    if data.preparation.get("kind") == "sound" and (flip or settings.tta):
        raise UserError(
            f"{flip or 'training.tta'}: a horizontal flip expects images, got "
            "spectrograms, whose recordings it would play backwards. Remove it."
        )
    if settings.tta and len(data.train.inputs.shape) != 4:
        raise UserError(
            "training.tta: a horizontal flip expects images, got inputs of shape "
            f"{tuple(data.train.inputs.shape[1:])}. Remove it."
        )
    if data.brightest != 255 and "hls-jitter" in where:
        raise UserError(
            f"{where['hls-jitter']}: hls-jitter expects images with values up to 255, got "
            f"{'none' if data.brightest is None else f'values up to {data.brightest}'} in "
            f"{recipe.data.source}. Remove it."
        )
    device, normalize = fabric.device, normalization(recipe, data)
    train = data.train.to(device)
    transforms = [TRANSFORMS[one.name](**one.model_dump(exclude={"name"})) for one in augment]
    train_loader = Loader(
        Split(train.inputs, task.learned(labels)),
        batch_size=batch // (steps * fabric.world_size),
        seed=trial.seed,
        augment=(*transforms, normalize),
        device=device,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        balanced=settings.sampling == "balanced",
    )

    for name, split in data.splits.items():
        if 0 < len(split) < fabric.world_size:
            raise UserError(
                f"--devices: expected at most as many processes as {name} examples, {len(split)}, "
                f"got {fabric.world_size}."
            )

    def whole(split: Split, most: int = BATCH, workers: int | None = None) -> Loader:
        return Loader(
            split.share(fabric.global_rank, fabric.world_size),
            batch_size=min(most, evaluation_batch(split)),
            seed=trial.seed,
            augment=(*center_crops(recipe.data), normalize),
            device=device,
            shuffle=False,
            workers=workers,
        )

    validation = None if data.validation is None else whole(data.validation)
    memorized = whole(Split(train.inputs, torch.arange(len(train))))
    test = few = whole(data.test)
    if not isinstance(data.test.inputs, Tensor):
        few = whole(data.test, most=2, workers=0)
    return Loaders(train_loader, memorized, test, few, validation, labels, normalize)


def build_network(
    recipe: Recipe, trial: Trial, data: DataSet, task: Task, loaders: Loaders
) -> nn.Module:
    """Build the network, the same for all arms of a seed, and try it on two examples.

    Raises:
        UserError: if it cannot be built, or its outputs do not fit the task.
    """
    torch.manual_seed(trial.seed)
    x, _ = next(loaders.few.epoch(0), (None, None))
    if x is None:
        raise UserError(
            f"{recipe.data.source}: no test example can be read. vicinal data info shows why."
        )
    x = x[:2]
    name, dropout = recipe.model.name, recipe.training_of(trial.arm).dropout
    model = build(name, shape=tuple(x.shape[1:]), classes=task.outputs)
    if dropout is not None:
        set_dropout(model, dropout)
    if isinstance(model, FastCNN) and parse_name(name).weights_file is None:
        rows = range(0, len(data.train), max(1, len(data.train) // WHITENING_EXAMPLES))
        inputs = data.train.read(rows).inputs
        model.whiten_by(loaders.normalize.apply(inputs, torch.empty(len(inputs), 0)))
    if isinstance(model, HuggingFace) and x.dtype == torch.int64:
        _check_tokens(model, data, name)
    model.eval()
    try:
        with torch.no_grad():
            outputs = model(x.cpu())
    except Exception as error:  # the network may be anyone's
        advice = (
            "another size of the data (for images, the option size=224 of the source resizes them)"
        )
        if x.dtype == torch.int64:
            advice = "fewer tokens: the option length=N of the source cuts texts"
        raise UserError(
            f"model.name: {name} failed on two examples of shape {tuple(x.shape[1:])} and type "
            f"{x.dtype} ({one_line(error)}). Choose another network, or {advice}."
        ) from error
    expected = (len(x), task.outputs)
    if not isinstance(outputs, Tensor) or tuple(outputs.shape) != expected:
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs)
        each = "class" if task.name == "classification" else "target"
        raise UserError(
            f"model.name: expected outputs of shape {expected} from {name}, one for "
            f"each example and {each}, got {got}. Change its last layer."
        )
    if parse_name(name).library == "import":
        _check_state(model, name, x.cpu(), task.outputs)
    return model.train()


def _check_state(model: nn.Module, name: str, x: Tensor, classes: int) -> None:
    """Raise if the ``state_dict`` of the user's network does not determine it, or has other types.

    Args:
        model: in eval mode.
        name: name of the recipe.
        x: examples.
        classes: number of outputs.
    """
    state = model.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.is_complex():
            kind = value.dtype if isinstance(value, Tensor) else type(value)
            raise UserError(
                f"model.name: expected real tensors as the state of {name}, got {kind} for {key}. "
                "Store numbers as buffers, and complex ones as view_as_real returns them."
            )
        if value.layout != torch.strided:
            raise UserError(
                f"model.name: expected dense tensors as the state of {name}, got {value.layout} "
                f"for {key}. Store its indices and values as buffers."
            )
    if any(isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse for m in model.modules()):
        raise UserError(
            f"model.name: {name} has an embedding with sparse gradients, which the optimizers do "
            "not take. Pass sparse=False to it."
        )
    saved = {key: value.clone() for key, value in state.items()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            outputs = _of_two_builds(name, x, classes)
        finally:  # builds may share modules
            now = model.state_dict()
            kinds = [{k: (v.shape, v.dtype) for k, v in one.items()} for one in (now, saved)]
            same = kinds[0] == kinds[1]
            for key, value in saved.items() if same else ():
                if not torch.equal(now[key], value):
                    now[key].copy_(value)
    if not same:
        raise UserError(
            f"model.name: {name} gets other parameters or buffers in a training step. Create all "
            "layers and buffers in __init__, with fixed names and sizes."
        )
    if outputs is None or not torch.equal(*outputs):
        raise UserError(
            f"model.name: {name} computes with tensors that its state_dict lacks, so that a loaded "
            "checkpoint would give other outputs. Register them with register_buffer."
        )


def _of_two_builds(name: str, x: Tensor, classes: int) -> list[Tensor] | None:
    """Return the outputs of a network after a pass in train mode, and of one with its state.

    None if only the second one fails.

    Its parameters are changed before, since a zero may hide what follows it.
    """
    seed = torch.initial_seed()
    networks = []
    for k in (1, 2):
        torch.manual_seed(seed + k)
        one = build(name, shape=tuple(x.shape[1:]), classes=classes, initial_weights=False)
        one.eval()(x)
        networks.append(one)
    first, second = networks
    for parameter in first.parameters():
        if parameter.requires_grad and parameter.is_floating_point():  # signs stay
            more = 0.1 * torch.rand_like(parameter)
            parameter.add_(torch.where(parameter == 0, more, more * parameter))
    with suppress(Exception):  # which training would report
        first.train()(x)
    try:
        second.train().load_state_dict(first.train().state_dict())
    except Exception as error:  # of torch or of the network
        raise UserError(
            f"model.name: a second {name} does not take the state of the first one "
            f"({one_line(error)}). Create all layers and buffers in __init__, with fixed names and "
            "sizes."
        ) from error
    outputs = []
    with suppress(Exception):
        for one in (first, first, second):
            torch.manual_seed(seed)
            outputs.append(one.eval()(x).nan_to_num())
    if len(outputs) < 2:  # parameters that cannot have such values
        return [x, x]
    if len(outputs) < 3:
        return None
    # If the same network gives two outputs, it draws random numbers from another library.
    return outputs[1:] if torch.equal(outputs[0], outputs[1]) else [outputs[0]] * 2


def _check_tokens(model: HuggingFace, data: DataSet, name: str) -> None:
    """Raise if the tokenizer is not that of the network."""
    padding = data.preparation.get("padding", model.padding)
    tokens = [split.inputs for split in data.splits.values() if isinstance(split.inputs, Tensor)]
    largest = max(int(one.max()) for one in tokens if len(one))
    known = len(next(model.tokens.parameters()))
    if padding != model.padding:
        wrong = f"padding {model.padding}, got a tokenizer that pads with {padding}"
        advice = ", or set pad_token_id in its config.json"
    elif largest >= known:
        wrong, advice = f"tokens below {known}, got a tokenizer with token {largest}", ""
    else:
        return
    raise UserError(
        f"model.name: {name} expects {wrong}. Choose the tokenizer of the network{advice}."
    )


def normalization(recipe: Recipe, data: DataSet) -> Normalize:
    """Return the normalization of inputs: what the network expects, else of the training split.

    A pretrained network gets the mean and std that it was trained with. Gray images are repeated to
    its number of channels. Spectrograms are repeated too, but have their own mean and std.

    Raises:
        UserError: if the images have another number of channels than the network, or if ``mean``
            and ``std`` are given for inputs whose range is not known.
    """
    if data.brightest is None and "mean" in parse_name(recipe.model.name).options:
        raise UserError(
            "model.name: the options mean and std are for images, whose pixels are scaled to the "
            f"range from 0 to 1, got {recipe.data.source}. Remove them."
        )
    shape = tuple(data.train.inputs.shape[1:])
    known = input_format(recipe.model.name) if len(shape) == 3 else None
    if known is None:
        return _own_normalization(data)
    channels = len(known.mean)
    if shape[0] not in (1, channels) and channels != 1:
        raise UserError(
            f"model.name: {recipe.model.name} expects {channels} channels, got {shape[0]} in "
            f"{recipe.data.source}. Choose other data, or remove the pretrained weights."
        )
    if data.brightest is None:
        own = _own_normalization(data)
        return Normalize(own.mean.expand(channels, 1, 1), own.std.expand(channels, 1, 1))
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (known.mean, known.std))
    return Normalize(mean * data.brightest, std * data.brightest)


def _own_normalization(data: DataSet) -> Normalize:
    """Return the normalization of the training split; files are read once for all trials."""
    if data.train not in _NORMALIZATIONS:
        together = data.preparation.get("features") == "wave"
        _NORMALIZATIONS[data.train] = normalization_of(data.train, together=together)
    return _NORMALIZATIONS[data.train]


def network_notes(recipe: Recipe, data: DataSet) -> list[Note]:
    """Return what a network's pretrained weights are, and how inputs are prepared for them.

    The network is built to find that out, so that weights that are missing or do not fit raise an
    error before the first trial.

    Raises:
        UserError: as ``build_network`` does.
    """
    name, notes = recipe.model.name, []
    parsed, shape = parse_name(name), tuple(data.train.inputs.shape[1:])
    if not parsed.pretrained and parsed.weights_file is None:
        frozen = [arm for arm in recipe.arms if recipe.training_of(arm).freeze == "backbone"]
        if frozen and parsed.library != "import":
            text = (
                f"arms.{frozen[0]} freezes a backbone of random weights, since {name} asks for no "
                "others. Add ?weights=FILE (timm: ?pretrained=true), or remove freeze"
            )
            notes.append(Note(text, doubtful=True))
        return notes
    normalize = normalization(recipe, data)
    built = torch.broadcast_shapes(tested_shape(recipe.data, data.test), normalize.mean.shape)
    build(
        name,
        shape=tuple(built),
        classes=task_of(data, recipe.task).outputs,
        log=lambda sentence: notes.append(Note(f"{name}: {sentence}")),
    )
    known = input_format(name) if len(shape) == 3 else None
    if len(shape) != 3:
        return notes
    text = f"{name}: inputs are normalized by the mean and std of the training split"
    doubtful = known is None and data.brightest is not None
    if doubtful:
        text += (
            ", since the format that its weights expect is not known; if they expect another one, "
            "pass it as options, such as ?mean=0.5&std=0.5"
        )
    if known is not None and data.brightest is not None:
        mean, std = (", ".join(f"{n:.4g}" for n in each) for each in (known.mean, known.std))
        text = f"{name}: images are normalized by the mean {mean} and std {std} of {known.origin}"
    if len(normalize.mean) > shape[0]:
        text += f", and repeated to {len(normalize.mean)} channels"
    notes.append(Note(text, doubtful=doubtful))
    if known is not None and known.size is not None and known.size != built[1:]:
        sides = (f"{height}x{width}" for height, width in (known.size, built[1:]))
        text = "{}: its weights were trained with images of {} pixels, these have {}".format(
            name, *sides
        )
        notes.append(Note(f"{text}; the option size= of the data source resizes them"))
    return notes
