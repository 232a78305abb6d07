"""A study: its folder, and its unfinished trials."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pydantic

from vicinal.data import DataSet
from vicinal.errors import StoppedError, TrialError, UserError
from vicinal.files import STATE, write_whole
from vicinal.studies.probing import Probing, probe, unprobed
from vicinal.studies.third_class import third_class_share
from vicinal.training.arms import imported_policies, policy_of
from vicinal.training.metrics import check_metrics
from vicinal.training.origin import (
    check_origin,
    check_unchanged,
    data_facts,
    origin_differences,
)
from vicinal.training.recipe import load_resolved, resolved_text
from vicinal.training.recipe_warnings import code_warnings, data_warnings, unused_settings
from vicinal.training.run_folder import check_empty, differences, locked
from vicinal.training.settings import Recipe
from vicinal.training.stop_signals import stop_signals
from vicinal.training.trial_result import (
    FAILURE,
    EpochRow,
    Outputs,
    Result,
    Trial,
    read_failure,
    read_outputs,
    read_result,
    settings_of,
    trials_of,
    with_metric,
    write_failure,
)

THIRD_CLASS = "third-class.json"
"""File name in the folder of a study; see ``vicinal.studies.third_class``."""


@dataclass(frozen=True)
class Study:
    """A recipe with its folder, and the results in it.

    Args:
        recipe: recipe of the study.
        folder: folder of the study.
        commented: the text of ``recipe.toml`` in the folder, which may have comments; by default,
            all fields of the recipe.
    """

    recipe: Recipe
    folder: Path
    commented: str | None = None

    @property
    def text(self) -> str:
        """The recipe as TOML, for the folder."""
        return resolved_text(self.recipe) if self.commented is None else self.commented

    def write_recipe(self) -> None:
        """Write the recipe into the folder, after all checks, so that a wrong one is not kept."""
        if not self.recipe_is_written:
            write_whole(self.folder / "recipe.toml", self.text)

    @property
    def recipe_is_written(self) -> bool:
        """Whether the recipe in the folder is this one."""
        path = self.folder / "recipe.toml"
        return path.exists() and path.read_bytes() == self.text.encode()

    @property
    def trials(self) -> list[Trial]:
        """All trials, in the order in which they run."""
        return trials_of(self.recipe)

    def trial_folder(self, trial: Trial) -> Path:
        """Return the folder of one trial."""
        return self.folder / "trials" / trial.folder

    def results(self) -> dict[Trial, Result]:
        """Read the results of all finished trials.

        Raises:
            UserError: if one of them is invalid, or if two of them have different data, code or
                versions.
        """
        read = {t: read_result(self.trial_folder(t), t, self.recipe) for t in self.trials}
        results = {trial: result for trial, result in read.items() if result is not None}
        for trial, result in results.items():
            first, reference = next(one for one in results.items() if one[0].split == trial.split)
            changed = origin_differences(reference.origin, result.origin)
            if not changed and reference.test_examples != result.test_examples:
                changed = f"{reference.test_examples} and {result.test_examples} test examples"
            if not changed:
                first, reference = next(iter(results.items()))
                rest, other = (_of_any_split(one.origin) for one in (reference, result))
                changed = origin_differences(rest, other)
            if changed:
                raise UserError(
                    f"{self.folder}: {trial.folder} and {first.folder} were trained with different "
                    f"data, code or versions, so they cannot be compared ({changed}). "
                    "Delete the folders in trials/ that do not belong to the study."
                )
        if results:  # the recipe may have more metrics than when they were written
            data = next(iter(results.values())).origin["data"]
            check_metrics(self.recipe.metrics, data["task"], data["outputs"])
        return results

    def outputs(self, trial: Trial, results: Mapping[Trial, Result]) -> Outputs:
        """Read the outputs of a finished trial for the test split; see ``read_outputs``."""
        return read_outputs(self.trial_folder(trial), results[trial])

    @property
    def third_class(self) -> float | None:
        """The share of blends that look like a third class; None if it is unknown."""
        with suppress(OSError, TypeError, ValueError):
            return float(json.loads((self.folder / THIRD_CLASS).read_bytes()))
        return None

    def probing(
        self,
        results: Mapping[Trial, Result],
        data_of: Callable[[int], DataSet] | None = None,
        log: Callable[[str], None] = lambda _sentence: None,
    ) -> Probing:
        """Return what the probes of the study need; without data, they can only be read."""

        def no_data(_: int) -> DataSet:
            raise AssertionError("data are requested although all probes are stored")

        return Probing(
            self.recipe,
            self.trial_folder,
            lambda trial: self.outputs(trial, results),
            data_of or no_data,
            log,
        )

    def failures(self) -> dict[Trial, str]:
        """Return why trials failed with the settings of the recipe."""
        read = {
            trial: read_failure(self.trial_folder(trial), trial, self.recipe)
            for trial in self.trials
            if not (self.trial_folder(trial) / "result.json").exists()
        }
        return {trial: failure.reason for trial, failure in read.items() if failure is not None}


def _of_any_split(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the trials of all splits have in common.

    The data differ, and so does the number of categories that a training split of a table has, and
    with it the first layer of the network.
    """
    sizes = ("parameters", "tensors")
    network = {k: v for k, v in origin["network"].items() if k not in sizes}
    return {k: v for k, v in origin.items() if k != "data"} | {"network": network}


class StudyCallbacks(Protocol):
    """What is called while a study runs."""

    def begin(self, recipe: Recipe, total: int, done: int) -> None:
        """The study has ``total`` trials, of which ``done`` are finished."""

    def skipped(self, split: str, sentences: Sequence[str]) -> None:
        """Examples of a split cannot be read, with a sentence for each of them."""

    def start(self, trial: Trial) -> None:
        """A trial starts."""

    def log(self, sentence: str) -> None:
        """Report a sentence to the user."""

    def epoch(self, row: EpochRow, metric: str) -> None:
        """An epoch of the current trial has ended; ``metric`` is the primary one."""

    def finish(self, result: Result) -> None:
        """The current trial is finished, and its result is written."""

    def fail(self, trial: Trial, reason: str) -> None:
        """The current trial failed, and the study continues with the next."""


@contextmanager
def open_study(
    recipe: Recipe, folder: Path, *, text: str | None = None, of_folder: bool = False
) -> Iterator[Study]:
    """Lock the folder of a study inside the ``with`` block; create it if it does not exist.

    Finished trials are kept. Seeds, arms, conditions, titles and published rows can be added to the
    recipe later. Anything else that does not affect a finished trial can be changed too, except the
    name, the baseline, the number of splits and the primary metric.

    Args:
        recipe: recipe of the study.
        folder: folder of the study.
        text: the text of ``recipe.toml`` in the folder, which may have comments; by default, all
            fields of the recipe.
        of_folder: whether the recipe is that of the folder, perhaps with changes that were asked
            for.

    Raises:
        UserError: if the folder cannot be written, is in use, holds something else, or holds
            finished trials with different settings.
    """
    with locked(folder):
        study = Study(recipe, folder, text)
        check_finished(study, of_folder=of_folder)
        yield study


def check_finished(study: Study, *, of_folder: bool = False) -> None:
    """Raise a ``UserError`` unless the finished trials in the folder belong to the recipe."""
    recipe, folder = study.recipe, study.folder
    path = folder / "recipe.toml"
    if path.exists():
        finished = finished_results(folder)
        # The user may have edited the file since trials finished, so it isn't enough to compare it.
        if study.recipe_is_written and not any(_removed(one.trial, recipe) for one in finished):
            return
        old = load_resolved(path)
        changed = [change for one in finished for change in _changes(one, old, recipe)]
        if finished:
            fields = (
                {"name": one.name, "baseline": one.baseline, "splits": one.splits}
                for one in (old, recipe)
            )
            changed = [*differences(*fields), *changed]
        elif not of_folder and path.read_text("utf-8") != resolved_text(old):
            # The user wrote this file, so only the same recipe may replace it.
            changed = differences(old.model_dump(), recipe.model_dump())
        if changed:
            removed = all(" was removed" in one and not one.startswith("split ") for one in changed)
            kept = (
                "name the finished arms and conditions too, since they can only be added to, "
                "or choose another folder with --out"
            )
            other = "choose another folder with --out, or delete this one"
            if all(one.startswith("arms.") for one in changed):
                other += ", or leave these arms as they were and add the changed ones under other "
                other += "names"
            advice = kept if removed else other
            raise UserError(
                f"{folder} holds a study with different settings: "
                f"{'; '.join(dict.fromkeys(changed))}. {advice[0].upper()}{advice[1:]}."
            )
    else:
        check_empty(folder)


def finished_results(folder: Path) -> list[Result]:
    """Return the results in the folder of a study, including those of earlier recipes."""
    found = []
    for path in sorted(folder.glob("trials/*/result.json")):
        with suppress(OSError, pydantic.ValidationError):
            found.append(Result.model_validate_json(path.read_bytes()))
    return found


def _changes(result: Result, old: Recipe, new: Recipe) -> list[str]:
    """Return a clause for each change of a recipe that affects a finished trial."""
    trial, task = result.trial, result.origin["data"]["task"]
    if removed := _removed(trial, new):
        return [removed]
    if trial.arm not in old.arms:  # of an earlier recipe: its result has its settings
        return []
    own = f"{trial.arm}."
    return [
        f"arms.{one}" if one.startswith(own) else one.removeprefix("recipe.")
        for one in differences(
            *(with_metric(settings_of(recipe, trial), task) for recipe in (old, new))
        )
    ]


def _removed(trial: Trial, recipe: Recipe) -> str:
    """Return a clause on what a recipe lacks for a trial, or ``""``; it may have fewer seeds."""
    if trial.arm not in recipe.arms:
        return f"arms.{trial.arm} was removed"
    if trial.corrupted not in recipe.corrupted_labels:
        return f"{trial.corrupted} was removed from corrupted_labels"
    return f"split {trial.split} was removed" if trial.split >= recipe.splits else ""


def run_study(study: Study, callbacks: StudyCallbacks, *, data: DataSet | None = None) -> bool:
    """Run the unfinished trials one after the other; return whether there were any.

    Each result is written as soon as its trial ends, so an interrupted study resumes with the
    trials that have no result. A trial that fails, because its loss is not finite or memory runs
    out, does not stop the others; it runs again after its settings have changed or its
    ``failed.json`` is deleted.

    Args:
        study: the study.
        callbacks: what is called meanwhile.
        data: the first split of its data set, if it was read already.

    Raises:
        UserError: if a result cannot be written, a trial cannot start, or data, code or versions
            have changed.
    """
    recipe = study.recipe
    finished, failed = study.results(), study.failures()
    unfinished = [trial for trial in study.trials if trial not in finished and trial not in failed]
    for trial in finished:  # in case the process was killed right after writing the result
        (study.trial_folder(trial) / STATE).unlink(missing_ok=True)
    callbacks.begin(recipe, len(finished) + len(unfinished), len(finished))
    if others := len(finished_results(study.folder)) - len(finished):
        callbacks.log(f"warning: finished trials of other seeds are not shown: {others}")
    examples = study.folder / "examples.npz"
    if not unfinished and _is_complete(study, finished, examples, callbacks.log):
        study.write_recipe()
        return False
    # Imported late, since a finished study does not need Lightning Fabric.
    from vicinal.studies.examples import write_examples
    from vicinal.studies.trial_probes import check_probes
    from vicinal.training.arm_checks import check_arms, check_training
    from vicinal.training.devices import check_processes
    from vicinal.training.trial_setup import load_data, training_labels

    policies = (path for arm in recipe.arms.values() for path in imported_policies(arm))
    check_unchanged([recipe.model.name, *policies])
    check_processes(1, 1)
    for sentence in (*code_warnings(recipe), *unused_settings(recipe, recipe.arms)):
        callbacks.log(sentence)
    data = load_data(recipe, callbacks.skipped, data=data)
    for sentence in data_warnings(recipe, data, recipe.arms):
        callbacks.log(sentence)
    origins = {trial.split: result.origin for trial, result in finished.items()}
    if 0 in origins:
        check_origin(
            {"data": origins[0]["data"]}, {"data": data_facts(data, recipe.task)}, study.folder
        )
    for corrupted in recipe.corrupted_labels:
        training_labels(recipe, corrupted, data)
    arms = dict.fromkeys(trial.arm for trial in unfinished)
    for sentence in check_arms(recipe, data, arms):
        callbacks.log(sentence)
    check_training(recipe, data, [trial for trial in unfinished if trial.split == 0])
    check_probes(recipe, data)
    study.write_recipe()
    _write_third_class(study, data)

    @lru_cache(maxsize=1)
    def data_of(split: int) -> DataSet:
        return load_data(recipe, callbacks.skipped, split=split) if split else data

    with stop_signals() as signals:

        def stop_if_asked() -> None:
            if signals:
                raise StoppedError(
                    f"stopped by {signals[0]}. Finished trials are kept: run the same command to "
                    "resume."
                )

        for trial in unfinished:
            examples.unlink(missing_ok=True)  # or an interruption would leave those of fewer trials
            callbacks.start(trial)
            split = data_of(trial.split)
            result = _result_of(study, trial, split, callbacks, expected=origins.get(trial.split))
            if result is not None:
                origins[trial.split] = result.origin
            stop_if_asked()
        results = study.results()
        probing = study.probing(results, data_of, callbacks.log)
        for trial in unprobed(probing, results):
            _probe(study, probing, results, trial)
            stop_if_asked()
    write_examples(examples, recipe, data, results, lambda one: study.outputs(one, results))
    return bool(unfinished)


def _result_of(
    study: Study,
    trial: Trial,
    data: DataSet,
    callbacks: StudyCallbacks,
    *,
    expected: Mapping[str, Any] | None,
) -> Result | None:
    """Run a trial; return its result, or None if it failed."""
    from vicinal.training.trial import Callbacks, run_trial

    folder = study.trial_folder(trial)
    (folder / FAILURE).unlink(missing_ok=True)

    def start_over(changed: str) -> None:
        callbacks.log(f"{trial.folder} starts over, since its settings have changed ({changed})")

    called = Callbacks(callbacks.epoch, callbacks.log)
    try:
        result = run_trial(
            study.recipe,
            trial,
            data,
            folder,
            callbacks=called,
            expected=expected,
            start_over=start_over,
        )
    except TrialError as error:
        write_failure(folder, str(error), study.recipe, trial)
        (folder / STATE).unlink(missing_ok=True)
        callbacks.fail(trial, str(error))
        return None
    callbacks.finish(result)
    return result


def _probe(study: Study, probing: Probing, results: Mapping[Trial, Result], trial: Trial) -> None:
    """Measure the probes of a trial; an error says what is kept."""
    try:
        probe(probing, results, trial)
    except UserError as error:
        raise UserError(
            f"probes of {trial.folder}: {error} Finished trials are kept: remove the probe from "
            f"the recipe; until then, vicinal report {study.folder} shows the rest."
        ) from error


def _write_third_class(study: Study, data: DataSet) -> None:
    """Write the share of blends of a third class, by the first arm that mixes inputs."""
    share = next(
        (
            third_class_share(data, policy, seed=study.recipe.seed)
            for arm in study.recipe.arms.values()
            if (policy := policy_of(arm, data)) is not None and "input" in getattr(arm, "at", ())
        ),
        None,
    )
    write_whole(study.folder / THIRD_CLASS, json.dumps(share))


def _is_complete(
    study: Study, finished: Mapping[Trial, Result], examples: Path, log: Callable[[str], None]
) -> bool:
    """Return whether a study with all results has its examples and probes too."""
    if not is_undamaged(examples):
        log(f"{examples} is missing or damaged, and is written again")
        return False
    return not unprobed(study.probing(finished), finished)


def is_undamaged(examples: Path) -> bool:
    """Return whether the examples for the report can be read."""
    try:
        with examples.open("rb") as opened, np.load(opened) as file:
            whole = all(isinstance(file[name], np.ndarray) for name in file.files)
            chosen, compared = (
                any(name.startswith(start) for name in file.files) for start in ("rows", "compared")
            )
            return whole and chosen <= compared  # an earlier version did not store the latter
    except Exception:  # a damaged archive raises errors of many types
        return False
