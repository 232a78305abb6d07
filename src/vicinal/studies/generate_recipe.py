"""A recipe for a data set: network, augmentation and training by stated rules."""

import json
import math
import re
from collections.abc import Sequence

import tomlkit
import torch

from vicinal.data import DataSet, parse_spec
from vicinal.escaping import visible
from vicinal.models import mixing_layers
from vicinal.models.registry import check_name
from vicinal.training.arm_shorthands import shorthand_arms
from vicinal.training.arm_titles import dumped
from vicinal.training.metrics import DEFAULT_METRICS
from vicinal.training.task import Task

STEPS, LEAST_EPOCHS, MOST_EPOCHS, SEEDS = 3000, 10, 60, 5
"""A training of the generated recipe takes about so many optimizer steps; and seeds of each arm."""

SMALL, RARE, FOLDS = 1000, 100, 5
"""Data sets with fewer examples, in all or of a class, get so many folds, if the time allows."""

_BUDGET = f"# Up to {STEPS:,} steps in {LEAST_EPOCHS} to {MOST_EPOCHS} epochs, if --minutes allow."
"""The comment on the number of epochs."""


_ADAMW = '{{ name = "adamw", lr = {}, weight_decay = {} }}'
_SGD = '{ name = "sgd", lr = 0.1, weight_decay = 0.0005 }'

_SOME = 100
"""The number of images that tell whether all of them are gray."""


def generate(
    source: str,
    data: DataSet,
    task: Task,
    *,
    arms: Sequence[str] = (),
    model: str | None = None,
    splits: int = 1,
) -> str:
    """Return a recipe for a data set as TOML, with comments on each choice.

    Args:
        source: that names the data set.
        data: the data set.
        task: what is predicted.
        arms: names as in ``vicinal.training.arm_shorthands.SHORTHANDS``; by default two that suit
            the data, and no mixing.
        model: name of the network, instead of the rule's.
        splits: number of folds; 1 for one test split.

    Raises:
        UserError: if there is no such arm or network.

    Example:
        >>> from vicinal.data import load
        >>> from vicinal.training.task import task_of
        >>> data = load("iris")
        >>> print(generate("iris", data, task_of(data, "auto")).splitlines()[0])
        # A study of iris: 120 training and 30 test examples of shape 4, 3 classes.
    """
    shape = tuple(data.train.inputs.shape[1:])
    form = form_of(data)
    network, why = (model, "as chosen") if model else _network(source, form, shape)
    count = len(data.train)
    batch = next(
        (size for most, size in ((500, 16), (5000, 32), (20_000, 64)) if count < most), 128
    )
    batch = min(batch, max(2, count // 4))
    steps = math.ceil(count / batch)
    epochs = min(max(round(STEPS / steps), LEAST_EPOCHS), MOST_EPOCHS)
    augment, why_augment = _augmentation(data, form, shape)
    conv = form in ("images", "spectrograms")
    values = f"{task.outputs} real value{'s' * (task.outputs > 1)}"
    what = f"{len(data.classes)} classes" if data.classes else values
    if task.name == "multi-label":
        what = f"{task.outputs} labels"
    validation = f", {len(data.validation):,} validation" if data.validation else ""
    lines = [
        f"# A study of {visible(source)}: {count:,} training{validation} and {len(data.test):,} "
        "test examples of shape "
        f"{'x'.join(map(str, shape))}, {what}.",
        "",
        f"name = {tomlkit.string(study_name(source)).as_string()}",
        'baseline = "erm"                # the arm that the others are compared with',
        f"seeds = {SEEDS}                       # trials of each arm",
        *(
            [f"splits = {splits}                      # folds: one test split would be small"]
            if splits > 1
            else []
        ),
        f"metrics = {json.dumps(list(DEFAULT_METRICS[task.name]))}   # primary metric first",
        "",
        "[data]",
        f"source = {tomlkit.string(source).as_string()}",
        *([f"augment = [{augment}]   # {why_augment}"] if augment else [f"# {why_augment}"]),
        "",
        "[model]",
        f"name = {tomlkit.string(network).as_string()}   # {why}",
        "",
        "[training]",
        _BUDGET,
        f"epochs = {epochs}",
        f"batch_size = {batch}",
        f"optimizer = {_optimizer_of(network)}",
        'schedule = { name = "one-cycle" }   # up to the learning rate, and down to almost zero',
        *(["channels_last = true           # faster convolutions"] if conv else []),
        *(
            ['precision = "bfloat16"         # faster on a GPU']
            if torch.cuda.is_available()
            else []
        ),
        f"checkpoint_every = {max(1, epochs // 4)}",
    ]
    return "\n".join(lines) + "\n" + _arms(form, task, network, arms)


def form_of(data: DataSet) -> str:
    """Return the form of the inputs: images, spectrograms, texts, tables or arrays.

    Example:
        >>> from vicinal.data import load
        >>> form_of(load("digits")), form_of(load("iris"))
        ('images', 'tables')
    """
    shape = tuple(data.train.inputs.shape[1:])
    if data.brightest is not None:
        return "images"
    if not data.train.inputs.dtype.is_floating_point:
        return "texts"
    if len(shape) == 3:
        return "spectrograms"
    return "tables" if len(shape) == 1 else "arrays"


def study_name(source: str) -> str:
    """Return a name for the study of a data set, such as that of its folder.

    Example:
        >>> study_name("folder:data/Flowers 2?size=64"), study_name("iris")
        ('flowers-2', 'iris')
    """
    spec = parse_spec(source)
    last = re.split(r"[/\\:,]", spec.where.rstrip("/\\"))[-1]
    name = last.rpartition(".")[0] or last
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or spec.name


def _network(source: str, form: str, shape: tuple[int, ...]) -> tuple[str, str]:
    """Return the name of the network that suits the inputs, and the reason."""
    if form in ("tables", "arrays"):
        return "mlp", "two hidden layers; categories are one-hot, which embeds them"
    if form == "texts":
        tokenizer = parse_spec(source).options["tokenizer"]
        return f"hf:{tokenizer}", "the network that the tokenizer belongs to"
    if min(shape[1:]) < 16:
        what = "images below 16x16 pixels" if form == "images" else "small spectrograms"
        return "small-cnn", f"for {what}"
    if form == "spectrograms":
        return "lenet", "small and fast; vgg-11 is more accurate and takes longer"
    if not torch.cuda.is_available():
        return "fast-cnn", "trains quickly without a GPU"
    small = "preact-resnet-18", "for images up to 64x64 pixels on a GPU"
    return ("resnet-50", "for larger images on a GPU") if min(shape[1:]) > 64 else small


def _optimizer_of(network: str) -> str:
    name = check_name(network)
    if name.library == "hf":
        return _ADAMW.format(5e-05, 0.01)
    if name.pretrained or name.weights_file is not None:
        return _ADAMW.format(0.0003, 0.05)
    known = {"small-cnn": 0.01, "mlp": 0.003, "lenet": 0.002, "fast-cnn": 0.003, "vgg-11": 0.002}
    return _ADAMW.format(known[network], 0.01) if network in known else _SGD


def _augmentation(data: DataSet, form: str, shape: tuple[int, ...]) -> tuple[str, str]:
    """Return the transforms of training inputs as TOML, and the reason."""
    if form != "images":
        return "", f"no augmentation: none suits all {form}"
    if min(shape[1:]) < 16:
        return "", "no augmentation: every pixel counts in small images"
    crop = f'{{ name = "random-crop", padding = {max(1, min(shape[1:]) // 8)} }}'
    some = data.train.read(range(0, len(data.train), -(-len(data.train) // _SOME))).inputs
    if (some == some[:, :1]).all():
        return crop, "no flips: gray images are often letters or digits, which flips would change"
    flip = '{ name = "random-horizontal-flip" }'
    return f"{crop}, {flip}", "leave out the flip if left and right matter"


def _arms(form: str, task: Task, network: str, chosen: Sequence[str]) -> str:
    layers = [name for name in mixing_layers(network) or () if name != "input"]
    names = list(chosen)
    if not names:
        second = "cutmix" if form == "images" else "manifold"
        names = ["mixup", "c-mixup" if task.name == "regression" else second]
        names = [name for name in names if layers or name != "manifold"]
    names = ["erm", *(name for name in names if name != "erm")]
    arms = shorthand_arms(names, layers=layers)
    tables = {name: dumped(name, arm) for name, arm in arms.items()}
    return "\n" + tomlkit.dumps({"arms": tables})
