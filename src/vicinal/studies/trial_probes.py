"""The probes of one trial: its network, and the data that it is probed with."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vicinal.data import DataSet, Split, corrupt_labels, load
from vicinal.data.threads import cpu_threads
from vicinal.errors import UserError
from vicinal.probes import (
    attacks,
    between,
    calibration_of_logits,
    masking_checks,
    memorization,
    ood,
)
from vicinal.probes.adversarial import Attacks
from vicinal.studies.probe_measures import (
    ATTACKS,
    AUROC,
    CORRUPTED,
    FPR,
    GRADIENTS,
    LAMS,
    MISSES,
    REAL,
    TRANSFERRED,
    Array,
    Probed,
    accuracy_under,
    smaller_of,
)
from vicinal.training.probe_settings import Probes
from vicinal.training.settings import Recipe
from vicinal.training.task import task_of
from vicinal.training.trained_network import TrainedNetwork, load_network
from vicinal.training.trial_result import Outputs, Trial

_BATCH = 250
"""Examples in a batch; results do not depend on it."""

_OTHERS: "weakref.WeakKeyDictionary[DataSet, tuple[str, Split]]" = weakref.WeakKeyDictionary()
"""The test split of ``probes.ood`` by the data of a study: it is read once for all trials."""

Check = tuple[str, bool | None, str]


class OnPixels(nn.Module):
    """A trained network that takes images whose values are in [0, 1], instead of normalized ones.

    Args:
        trained: the network.
        brightest: the largest value of its images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trained: TrainedNetwork, brightest: float) -> None:
        """Wrap the network, which is not copied."""
        super().__init__()
        self.network, self.brightest = trained.network, brightest
        self.register_buffer("mean", trained.normalize.mean.to(trained.device))
        self.register_buffer("std", trained.normalize.std.to(trained.device))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` in [0, 1] to logits ``(batch, classes)``."""
        x = x.expand(torch.broadcast_shapes(x.shape, self.mean.shape))
        logits: Tensor = self.network((x * self.brightest - self.mean) / self.std)
        return logits


def probe_trial(
    recipe: Recipe,
    trial: Trial,
    outputs: Outputs,
    data: DataSet,
    checkpoints: Sequence[Path],
) -> Probed:
    """Measure all probes of a recipe on one trial.

    Args:
        recipe: recipe of the study.
        trial: the trial, which is finished.
        outputs: outputs of the trial for the test split.
        data: the data set that it was trained on.
        checkpoints: those of the trial, and of the network that transferred attacks are made with,
            if there is one.

    Raises:
        UserError: if a probe does not fit the data or the network, or a checkpoint is missing.
    """
    probes, values, checks = recipe.probes, dict[str, Array](), list[Check]()
    if probes.calibration:
        values |= _calibration(outputs)
    if probes.model_copy(update={"calibration": False}) == Probes.model_validate({}):
        return Probed(values, checks)
    training = recipe.training_of(trial.arm)
    network, *source = (
        load_network(path, allow_import=True, accelerator=training.accelerator)
        for path in checkpoints
    )
    with cpu_threads(training.threads):
        if probes.attacks is not None:
            found, checks = _attacks(recipe, data, network, *source)
            values |= found
        if probes.between is not None:
            values |= _between(network, data, probes.between.pairs, recipe.seed)
        if probes.memorization and trial.corrupted:
            values |= _memorization(recipe, trial, network, data)
        if probes.ood is not None:
            values |= _out_of_distribution(recipe, network, data)
    return Probed(values, checks)


def check_probes(recipe: Recipe, data: DataSet) -> None:
    """Raise an error if the probes of a recipe do not fit its data, before anything is trained.

    Raises:
        UserError: if the task is not classification, if there are attacks but inputs are not
            images, or if the data set of ``probes.ood`` cannot be prepared like the data.
    """
    probes, task = recipe.probes, task_of(data, recipe.task).name
    for field in Probes.model_fields:
        if getattr(probes, field) and task != "classification":
            raise UserError(
                f"probes.{field}: expected a task of classification, got {task}. Remove this probe."
            )
    if probes.attacks is not None and data.brightest is None:
        raise UserError(
            f"probes.attacks: expected images, got {recipe.data.source}. Remove [probes.attacks]."
        )
    if probes.between is not None and data.train.inputs.dtype == torch.int64:
        raise UserError(
            f"probes.between: expected inputs that can be blended, got the tokens of "
            f"{recipe.data.source}. Remove [probes.between]."
        )
    if probes.ood is not None:
        _other_examples(recipe, data)


def _between(network: TrainedNetwork, data: DataSet, pairs: int, seed: int) -> dict[str, Array]:
    batches = network.batches(data.train)
    found = between(network.network, batches, pairs=pairs, lams=len(LAMS), seed=seed)
    return {
        f"{series} at {lam:g}": row.double().numpy()
        for series, rows in ((MISSES, found.missed), (GRADIENTS, found.gradient_norms))
        for lam, row in zip(LAMS, rows, strict=True)
    }


def _memorization(
    recipe: Recipe, trial: Trial, network: TrainedNetwork, data: DataSet
) -> dict[str, Array]:
    """Return errors on all labels that were drawn at random, as in table 2 of the paper."""
    true = data.train.targets
    drawn = corrupt_labels(
        true, rate=trial.corrupted, num_classes=len(data.classes), seed=recipe.seed
    )
    rows = Split(data.train.inputs, torch.arange(len(true)))
    batches = (
        (x, drawn.labels[k.cpu()].to(x.device), drawn.replaced[k.cpu()].to(x.device))
        for x, k in network.batches(rows)
    )
    found = memorization(network.network, batches)
    errors = found.errors.double().numpy()
    corrupted = found.corrupted.numpy()
    both = {REAL: errors[~corrupted], CORRUPTED: errors[corrupted]}
    return {name: values for name, values in both.items() if len(values)}


def _other_examples(recipe: Recipe, data: DataSet) -> Split:
    """Load the test split of ``probes.ood``, prepared like the data."""
    assert recipe.probes.ood is not None
    source = recipe.probes.ood.source
    if data in _OTHERS and _OTHERS[data][0] == source:
        return _OTHERS[data][1]
    try:
        found = load(
            source,
            root=recipe.data.root,
            skip_bad=recipe.data.skip_bad,
            max_bytes=recipe.data.max_bytes,
            seed=recipe.seed,
            test_fraction=recipe.data.test_fraction,
            preparation=data.preparation,
        )
    except UserError as error:
        raise UserError(f"probes.ood.source: {error}") from error
    _OTHERS[data] = source, found.test
    return found.test


def _out_of_distribution(
    recipe: Recipe, network: TrainedNetwork, data: DataSet
) -> dict[str, Array]:
    both = (network.batches(one) for one in (data.test, _other_examples(recipe, data)))
    found = ood(network.network, *both)
    smaller = np.zeros(min(len(found.scores), len(found.other_scores)))
    values = {AUROC: found.auroc_values.numpy(), FPR: found.fpr95_values.numpy()}
    return values | {smaller_of(name): smaller for name in values}


def _calibration(outputs: Outputs) -> dict[str, Array]:
    found = calibration_of_logits(outputs.last, outputs.targets)
    return {
        f"{title}{scaled}": getattr(one, f"{name}_values").numpy()
        for scaled, one in (("", found.raw), (", temperature-scaled", found.scaled))
        for title, name in (("ECE", "ece"), ("NLL", "nll"), ("Brier score", "brier"))
    }


def _attacks(
    recipe: Recipe, data: DataSet, network: TrainedNetwork, source: TrainedNetwork | None = None
) -> tuple[dict[str, Array], list[Check]]:
    """Attack a random sample of the test examples, and check that gradients are not masked."""
    settings, brightest = recipe.probes.attacks, data.brightest
    assert settings is not None
    assert brightest is not None  # check_probes has raised
    chance = torch.Generator().manual_seed(recipe.seed)
    chosen = torch.randperm(len(data.test), generator=chance)[: settings.examples]
    rows = chosen.sort().values
    read = data.test.read(rows.tolist())
    images = read.inputs
    for crop in network.crops:
        images = crop.apply(images, torch.empty(len(images), 0))
    labels = data.test.targets[rows[torch.from_numpy(read.kept)]]
    pieces = ((images.float() / brightest).split(_BATCH), labels.split(_BATCH))
    batches = list(zip(*pieces, strict=True))
    # Epsilon 1, the whole range of pixels, is used by the checks only, and not reported.
    epsilons = [0.0, *(one / 255 for one in settings.epsilons), 1.0]
    options: dict[str, Any] = {"restarts": settings.restarts, "top": settings.top}
    model = OnPixels(network, brightest)
    white = attacks(model, batches, epsilons=epsilons, names=ATTACKS, **options)
    found: list[tuple[str, tuple[str, ...], Attacks]] = [("", ATTACKS, white)]
    black = None
    if source is not None:
        parameter = next(network.network.parameters())  # arms may differ in precision and device
        black = attacks(
            model,
            batches,
            epsilons=epsilons,
            names=TRANSFERRED,
            source=OnPixels(source, brightest).to(parameter.device, parameter.dtype),
            **options,
        )
        found.append((", transferred", TRANSFERRED, black))
    values = {
        f"{accuracy_under(name, of, top)} at {epsilon:g}": right.double().numpy()
        for of, names, result in found
        for name in names
        for top in sorted({1, settings.top})
        for epsilon, right in zip(
            (0.0, *settings.epsilons), result.correct(name, top=top)[:-1], strict=True
        )
    }
    checks = [(one.name, one.ok, one.sentence) for one in masking_checks(white, black)]
    return values, checks
