"""A study: its folder, and running what is not finished in it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vicinal.errors import TrialError, UserError
from vicinal.files import STATE, write_whole
from vicinal.training.origin import check_origin, origin_differs
from vicinal.training.recipe import load_resolved, resolved_text
from vicinal.training.run_folder import LOCK, alone_in, differences
from vicinal.training.settings import Recipe
from vicinal.training.trial_result import (
    FAILURE,
    EpochRow,
    Result,
    Trial,
    examples_are_whole,
    read_failure,
    read_result,
    settings_of,
    trials_of,
    trials_with_results,
    write_failure,
)
from vicinal.training.unused_settings import idle_settings


@dataclass(frozen=True)
class Study:
    """A recipe in a folder; the trials that are finished there, and those that are left."""

    recipe: Recipe
    folder: Path

    @property
    def trials(self) -> list[Trial]:
        """Every trial of the study, in the order in which they are run."""
        return trials_of(self.recipe)

    def trial_folder(self, trial: Trial) -> Path:
        """Return the folder of one trial."""
        return self.folder / "trials" / trial.folder

    def results(self) -> dict[Trial, Result]:
        """Read the results of all finished trials.

        Raises:
            UserError: if one of them cannot be right, or if two were tested on other examples.
        """
        results: dict[Trial, Result] = {}
        for trial in self.trials:
            result = read_result(self.trial_folder(trial), trial, self.recipe)
            if result is not None:
                results[trial] = result
        if results:
            first, of_first = next(iter(results.items()))
            for trial, result in results.items():
                other = origin_differs(of_first.origin, result.origin)
                if not other and of_first.test_examples != result.test_examples:
                    other = (
                        f"data: the test split had {of_first.test_examples} examples, and has "
                        f"{result.test_examples}"
                    )
                if other:
                    raise UserError(
                        f"{self.folder}: {trial.folder} was trained with something else than "
                        f"{first.folder}, so they cannot be compared ({other}); delete the folders "
                        "in trials/ that do not belong to the study"
                    )
        return results

    def failures(self) -> dict[Trial, str]:
        """Return why trials failed with the settings of the recipe."""
        read = {
            trial: read_failure(self.trial_folder(trial), trial, self.recipe)
            for trial in self.trials
            if not (self.trial_folder(trial) / "result.json").exists()
        }
        return {trial: failure.reason for trial, failure in read.items() if failure is not None}


class StudyCallbacks(Protocol):
    """What is told of a study while it runs."""

    def begin(self, recipe: Recipe, total: int, done: int) -> None:
        """The study has ``total`` trials, of which ``done`` are finished."""
        ...

    def left_out(self, part: str, sentences: Sequence[str]) -> None:
        """Examples of a part could not be read; a sentence for each."""
        ...

    def start(self, trial: Trial) -> None:
        """A trial starts."""
        ...

    def say(self, sentence: str) -> None:
        """There is something to know about the current trial."""
        ...

    def epoch(self, row: EpochRow) -> None:
        """An epoch of the current trial is over."""
        ...

    def finish(self, result: Result) -> None:
        """The current trial is finished and written."""
        ...

    def fail(self, trial: Trial, reason: str) -> None:
        """The current trial failed, and the study goes on with the next."""
        ...


@contextmanager
def open_study(recipe: Recipe, folder: Path) -> Iterator[Study]:
    """Open a study's folder, alone; create it if it does not exist.

    What is finished in the folder counts. Seeds, arms, conditions, titles and published rows can be
    added to the recipe later, and whatever changes no finished trial can be changed.

    Raises:
        UserError: if the folder cannot be written, holds something else, holds finished trials
            whose settings differ (they are named), or if another process works in it.
    """
    with alone_in(folder):
        _settle(recipe, folder)
        yield Study(recipe, folder)


def _settle(recipe: Recipe, folder: Path) -> None:
    """Make sure that what is finished in a folder belongs to a recipe, and write the recipe.

    States of trials whose settings changed are deleted: these trials start anew.
    """
    path, text = folder / "recipe.toml", resolved_text(recipe)
    if path.exists():
        there = load_resolved(path)
        finished = trials_with_results(folder)
        differing = _changed_for(finished, there, recipe)
        if not finished and path.read_text("utf-8") != resolved_text(there):
            # A file that the user wrote: nothing says that it may be replaced.
            differing = differences(there.model_dump(), recipe.model_dump())
        if differing:
            raise UserError(
                f"{folder} holds a different study: {'; '.join(differing)}; choose another folder "
                "with --out, or delete this one"
            )
        for trial in trials_of(there):
            state = folder / "trials" / trial.folder / STATE
            if state.exists() and _differences(trial, there, recipe):
                state.unlink()
    elif any(entry.name != LOCK for entry in folder.iterdir()):
        raise UserError(
            f"{folder} holds something else than a study (there is no recipe.toml in it); choose "
            "another folder with --out"
        )
    if not path.exists() or path.read_text("utf-8") != text:
        write_whole(path, text)


def _changed_for(finished: Sequence[Trial], there: Recipe, here: Recipe) -> list[str]:
    """Say what differs between two recipes for finished trials, a phrase for each setting."""
    if not finished:
        return []
    names = ("name", "baseline")
    phrases = differences(*({name: getattr(one, name) for name in names} for one in (there, here)))
    for trial in finished:
        phrases += _differences(trial, there, here)
    return list(dict.fromkeys(phrases))


def _differences(trial: Trial, there: Recipe, here: Recipe) -> list[str]:
    if trial.arm not in there.arms:  # of a recipe before: its result says with what it was trained
        return []
    if trial.arm not in here.arms:
        return [f"arms.{trial.arm} is there and not here"]
    if trial.corrupted not in here.corrupted_labels:
        return [f"corrupted_labels has {trial.corrupted} there and not here"]
    phrases = differences(*(settings_of(one, trial) for one in (there, here)))
    own = f"{trial.arm}."
    return [
        f"arms.{one}" if one.startswith(own) else one.removeprefix("recipe.") for one in phrases
    ]


def run_study(study: Study, progress: StudyCallbacks) -> bool:
    """Run the trials that are left, one after the other; say whether there were any.

    Each result is written as soon as it is there. A study that was stopped, in whatever way, goes
    on here with the trials that have no result yet. A trial that fails, since its loss is not
    finite or memory runs out, does not stop the others; it is tried again once its settings have
    changed or its ``failed.json`` is deleted.

    Raises:
        UserError: if a result cannot be written, a trial cannot begin, or every trial failed.
    """
    finished, failed = study.results(), study.failures()
    left = [trial for trial in study.trials if trial not in finished and trial not in failed]
    for trial in finished:  # if it was killed right after its result was written
        (study.trial_folder(trial) / STATE).unlink(missing_ok=True)
    from vicinal.training.recipe_data import code_that_runs, first_lines, load_data

    for sentence in code_that_runs(study.recipe) if left else ():
        progress.say(sentence)
    progress.begin(study.recipe, len(study.trials), len(finished))
    for sentence in idle_settings(study.recipe, study.recipe.arms):
        progress.say(sentence)
    examples = study.folder / "examples.npz"
    if not left and examples_are_whole(examples):
        return False
    if not left:
        progress.say(f"{examples} is damaged, and is written again")
    # Heavy imports, which a finished study can do without.
    from vicinal.studies.examples import write_examples
    from vicinal.training.fingerprint import data_facts
    from vicinal.training.trial import Callbacks, run_trial
    from vicinal.training.trial_setup import given_labels

    data = load_data(study.recipe, progress.left_out)
    for sentence in first_lines(study.recipe, data, study.recipe.arms):
        progress.say(sentence)
    expected = next((result.origin for result in finished.values()), None)
    if expected is not None:
        there = {"data": expected["data"]} if expected else {}
        check_origin(there, {"data": data_facts(data)}, study.folder)
    for corrupted in study.recipe.corrupted_labels:
        given_labels(study.recipe, corrupted, data)
    write_examples(examples, study.recipe, data)
    if not left:
        return False
    for trial in left:
        progress.start(trial)
        folder = study.trial_folder(trial)
        (folder / FAILURE).unlink(missing_ok=True)
        try:
            result = run_trial(
                study.recipe,
                trial,
                data,
                folder,
                told=Callbacks(progress.epoch, progress.say),
                expected=expected,
            )
        except TrialError as error:
            write_failure(folder, str(error), study.recipe, trial)
            (folder / STATE).unlink(missing_ok=True)
            progress.fail(trial, str(error))
            continue
        expected = result.origin
        progress.finish(result)
    return True
