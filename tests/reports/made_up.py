"""Writes the folders of finished studies with made-up results, without training."""

import numpy as np

from vicinal.files import write_whole
from vicinal.studies import Study
from vicinal.training.metrics import constant_value, metric_values, primary_metric
from vicinal.training.recipe import read_recipe, resolved_text
from vicinal.training.settings import Recipe
from vicinal.training.trial_result import (
    EpochRow,
    Outputs,
    Result,
    settings_of,
    trials_of,
    write_failure,
    write_outputs,
    write_result,
)


def made_up_study(
    folder,
    *,
    task="classification",
    arms=3,
    seeds=3,
    examples=200,
    classes=5,
    titles=None,
    names=None,
    failed=(),
    gain=0.5,
    validation=False,
    **changes,
):
    """Write a study, and return it.

    Each arm after the baseline has logits, or predictions, that are better by ``gain`` than those
    of the arm before. ``failed`` has names of trial folders.
    """
    settings = read_recipe("digits").model_dump()
    settings |= {"seeds": seeds, "corrupted_labels": (0.0,), "name": "made-up"} | changes
    settings["training"]["epochs"] = 4
    settings["arms"] = {"erm": {"title": "ERM", "policy": "none"}}
    for k in range(1, arms):
        settings["arms"][f"arm{k}"] = {"title": f"mixup {k}", "policy": "mixup", "alpha": k / 2}
    for arm, title in (titles or {}).items():
        settings["arms"][arm]["title"] = title
    recipe = Recipe.model_validate(settings)
    write_whole(folder / "recipe.toml", resolved_text(recipe))
    study, random = Study(recipe, folder), np.random.default_rng(0)
    made = [_outputs_of(task, classes, examples - 2 * k, random) for k in range(recipe.splits)]
    targets, outputs = made[0]
    metric = primary_metric(recipe.metrics, task)
    names = names or [f"class {k}" for k in range(classes)]
    names = () if task == "regression" else names
    counts = np.bincount(targets, minlength=classes) if task == "classification" else targets.sum(0)
    split = {
        "examples": examples,
        "of_each_class": [int(count) for count in counts] if len(names) else [],
        "skipped": 2,
        "sha256": "0" * 64,
    }
    width = targets.shape[1] if targets.ndim > 1 else classes
    facts = {
        "task": task,
        "outputs": width,
        "predictor": {"mean": [0.0] * width, "median": [0.0] * width},
        "classes": list(names),
        "train": split,
        "test": split,
        "validation": split if validation else None,
        "preparation": "",
        "constant": False,
        "notes": [["column x is a guess", True]],
    }
    network = {"name": "small-cnn", "parameters": 9, "tensors": "", "source": {}}
    origin = {"data": facts, "network": network, "versions": {}}
    for trial in trials_of(recipe):
        own = study.trial_folder(trial)
        if trial.folder in failed:
            write_failure(own, "the loss became nan", recipe, trial)
            continue
        targets, outputs = made[trial.split]
        level = list(recipe.arms).index(trial.arm)
        own_random = np.random.default_rng([trial.seed, level, round(100 * trial.corrupted)])
        last = outputs(gain * level, own_random).astype(np.float32)
        digest = write_outputs(own, Outputs(last, last if validation else None, targets))
        value = float(metric_values(metric, last, targets, task).mean())
        held_out = (1.5, value) if validation else (None, None)
        memorized = 0.5 if trial.corrupted else None
        rows = [
            EpochRow(k, 0.1, 2 / k, 1.5, value, *held_out, memorized, 2.0 * k) for k in range(1, 5)
        ]
        result = Result(
            arm=trial.arm,
            corrupted=trial.corrupted,
            seed=trial.seed,
            split=trial.split,
            epochs=4,
            metric=metric,
            test_examples=len(targets),
            test_metric=value,
            constant_metric=constant_value(metric, facts["predictor"], targets, task),
            test_loss=1.5,
            train_metric=value,
            peak_epoch=2,
            best_epoch=3 if validation else None,
            memorized=memorized,
            seconds=8.0,
            peak_memory=2**28,
            settings=settings_of(recipe, trial),
            origin=origin,
            outputs=digest,
            versions={"torch": "2.9", "vicinal": "0.1"},
            hardware={"processor": "abacus", "cores": "2", "memory": "8 GiB"},
        )
        write_result(own, result, rows)
    return study


def _outputs_of(task, classes, examples, random):
    """Return targets, and a function from a gain to the outputs of a trial."""
    if task == "classification":
        targets = random.integers(0, classes, examples)
        targets[:classes] = np.arange(classes)[:examples]
        hard = random.normal(size=(examples, classes))

        def outputs(gain, random):
            noise = 0.7 * random.normal(size=(examples, classes))
            return hard + noise + (1 + gain) * np.eye(classes)[targets]

    elif task == "multi-label":
        targets = (random.random((examples, classes)) < 0.3).astype(np.float32)
        hard = random.normal(size=(examples, classes))

        def outputs(gain, random):
            noise = 0.7 * random.normal(size=(examples, classes))
            return hard + noise + (1 + gain) * (2 * targets - 1)

    else:
        targets = (5 + 3 * random.normal(size=(examples, 1))).astype(np.float32)

        def outputs(gain, random):
            return targets + random.normal(size=targets.shape) * np.exp(-gain)

    return targets, outputs
