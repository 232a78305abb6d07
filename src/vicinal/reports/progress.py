"""Progress: bars on a terminal, and lines in a log."""

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)

from vicinal.escaping import visible
from vicinal.studies import EpochRow, Result, Trial, condition_name
from vicinal.training.metrics import metric_text
from vicinal.training.settings import Recipe


class TrainProgress:
    """Shows epochs: a bar on a terminal inside ``with self.bars``, or a line for each in a log.

    Args:
        console: where to show them.
        epochs: how many epochs there will be.
    """

    slow = 0.0
    """Seconds that an epoch has to take to get its own line in a log."""

    def __init__(self, console: Console, epochs: int | None) -> None:
        """Begin at zero."""
        self._console, self._of = console, epochs
        note = TextColumn("{task.fields[note]}", markup=False)
        self.bars = _bars(console, MofNCompleteColumn(), note)
        self._epochs = self.bars.add_task("epoch", total=epochs, note="")

    def log(self, sentence: str) -> None:
        """Print a sentence."""
        self._console.print(visible(sentence), soft_wrap=True)

    def epoch(self, row: EpochRow, metric: str) -> None:
        """Show an epoch that is finished."""
        tested = metric_text(metric, row.test_metric)
        note = f"loss {row.train_loss:.3f}, test {tested}, {row.seconds:,.0f} s"
        self.bars.update(self._epochs, completed=row.epoch, note=note)
        if not self._console.is_terminal and row.seconds / row.epoch >= self.slow:
            self.log(f"epoch {row.epoch}/{self._of}: {note}")


class StudyProgress(TrainProgress):
    """Shows the progress of a study; see ``vicinal.studies.StudyCallbacks``."""

    slow = 20.0

    def __init__(self, console: Console) -> None:
        """Show it on ``console``."""
        super().__init__(console, None)
        self._trials = self.bars.add_task("trials", total=None, note="")

    def begin(self, recipe: Recipe, total: int, done: int) -> None:
        """Show how many trials there are, and how many are finished already."""
        self._recipe = recipe
        self._total, self._done, self._trained = total, done, 0
        self._began, self._announce = time.monotonic(), not done
        self.bars.update(self._trials, total=total, completed=done)
        if 0 < done < total:
            self.log(f"resuming: {done} of {total} trials are finished")

    def skipped(self, split: str, sentences: Sequence[str]) -> None:
        """Report how many examples of a split were skipped, and why the first was."""
        more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
        self.log(f"skipped in the {split} split: {sentences[0]}{more}")

    def start(self, trial: Trial) -> None:
        """Show the trial that starts."""
        self._of = self._recipe.training_of(trial.arm).epochs
        if self._announce:
            lengths = {self._recipe.training_of(arm).epochs for arm in self._recipe.arms}
            which = "each" if len(lengths) == 1 else "the first"
            trials = f"{self._total} trial{'s' * (self._total > 1)}"
            epochs = f"{self._of} epoch{'s' * (self._of > 1)}"
            self.log(f"{trials} to train, {which} for {epochs}")
        self._announce = False
        self.bars.reset(self._epochs, description=self._name(trial), total=self._of)

    def finish(self, result: Result) -> None:
        """Count a finished trial, and print a line about it in a log."""
        self._done += 1
        self._trained += 1
        seconds = (time.monotonic() - self._began) / self._trained * (self._total - self._done)
        left = f"{datetime.timedelta(seconds=round(seconds))} left"
        self.bars.update(self._trials, completed=self._done, note=left)
        if not self._console.is_terminal:
            metric = metric_text(result.metric, result.test_metric)
            self.log(
                f"[{self._done}/{self._total}] {self._name(result)}: {metric} in "
                f"{result.seconds:.1f} s, {left}"
            )

    def fail(self, trial: Trial, reason: str) -> None:
        """Count a failed trial, and report why it failed."""
        self._total -= 1
        self.bars.update(self._trials, total=self._total)
        self.log(f"failed: {self._name(trial)}: {reason}")

    def _name(self, trial: Trial | Result) -> str:
        recipe = self._recipe
        parts = [visible(recipe.arms[trial.arm].title)]
        if len(recipe.corrupted_labels) > 1:
            parts.append(condition_name(trial.corrupted))
        if recipe.splits > 1:
            parts.append(f"split {trial.split}")
        return ", ".join([*parts, f"seed {trial.seed}"])


@contextmanager
def file_progress(console: Console) -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a function that shows on a terminal how many bytes of a file are done."""
    tasks: dict[str, TaskID] = {}
    with _bars(console, TaskProgressColumn(show_speed=True)) as bars:

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(visible(name), total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield show


def _bars(console: Console, *columns: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
