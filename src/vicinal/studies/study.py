"""A study: its folder, and running what is not finished in it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vicinal.errors import UserError
from vicinal.files import STATE, write_whole
from vicinal.studies.folders import LOCK, alone_in, differences
from vicinal.studies.idle import idle_settings
from vicinal.studies.origin import check_origin, origin_differs
from vicinal.studies.results import (
    EpochRow,
    Result,
    Trial,
    examples_are_whole,
    read_result,
    trials_of,
)
from vicinal.training.recipe import load_resolved, resolved_text
from vicinal.training.settings import Recipe


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


class Progress(Protocol):
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


@contextmanager
def open_study(recipe: Recipe, folder: Path) -> Iterator[Study]:
    """Open a study's folder, alone; make it if it is not there.

    A folder that holds the same study with another number of seeds is welcome: what is finished
    in it counts, so seeds can be added to a study later.

    Raises:
        UserError: if the folder cannot be written, holds something else or a different study
            (the fields that differ are named), or if another process is at work in it.
    """
    with alone_in(folder):
        _settle(recipe, folder)
        yield Study(recipe, folder)


def _settle(recipe: Recipe, folder: Path) -> None:
    """Make sure that the folder holds this recipe and no other."""
    path = folder / "recipe.toml"
    if path.exists():
        # Seeds, published rows and what is said of them can be added later.
        later = {"seeds", "published", "differs"}
        there, here = (one.model_dump(exclude=later) for one in (load_resolved(path), recipe))
        differing = differences(there, here)
        if differing:
            raise UserError(
                f"{folder} holds a different study: {'; '.join(differing)}; choose another folder "
                "with --out, or delete this one"
            )
    elif any(entry.name != LOCK for entry in folder.iterdir()):
        raise UserError(
            f"{folder} holds something else than a study (there is no recipe.toml in it); choose "
            "another folder with --out"
        )
    text = resolved_text(recipe)
    if not path.exists() or path.read_text("utf-8") != text:
        write_whole(path, text)


def run_study(study: Study, progress: Progress) -> bool:
    """Run the trials that are left, one after the other; say whether there were any.

    Each result is written as soon as it is there. A study that was stopped, in whatever way, goes
    on here with the trials that have no result yet.

    Raises:
        UserError: if a result cannot be written or a trial cannot be trained.
    """
    finished = study.results()
    left = [trial for trial in study.trials if trial not in finished]
    for trial in finished:  # if it was killed right after its result was written
        (study.trial_folder(trial) / STATE).unlink(missing_ok=True)
    from vicinal.studies.data import code_that_runs, load_data, told_of

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
    from vicinal.studies.fingerprint import data_facts
    from vicinal.studies.ledger import Ledger
    from vicinal.studies.preparation import given_labels
    from vicinal.studies.trial import Told, run_trial

    data = load_data(study.recipe, progress.left_out)
    for sentence in told_of(data):
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
    ledger = Ledger(study.folder / "study.db", study.recipe.name)
    ledger.begin(left)
    while (claim := ledger.claim()) is not None:
        number, trial = claim
        if trial not in left:
            ledger.finish(number, None)
            continue
        progress.start(trial)
        result = run_trial(
            study.recipe,
            trial,
            data,
            study.trial_folder(trial),
            told=Told(progress.epoch, progress.say),
            expected=expected,
        )
        expected = result.origin
        ledger.finish(number, result.test_accuracy)
        progress.finish(result)
    return True
