"""Progress: a live display on a terminal, one quiet line a trial anywhere else."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)

from vicinal.escaping import visible
from vicinal.studies import EpochRow, Result, Trial, condition_name
from vicinal.training.settings import Recipe

SLOW = 20
"""Seconds of an epoch from which on it has a line of its own in a log."""


class StudyProgress:
    """Tells of a study while it runs; see ``vicinal.studies.StudyCallbacks``. A context manager."""

    def __init__(self, console: Console) -> None:
        """Write to ``console``: live if it is a terminal."""
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._trials = self._bars.add_task("trials", total=None, note="")
        self._epochs = self._bars.add_task("", total=None, note="", visible=False)

    def __enter__(self) -> Self:
        """Start the display."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the display away."""
        self._bars.stop()

    def begin(self, recipe: Recipe, total: int, done: int) -> None:
        """Note how much there is to do."""
        self._recipe = recipe
        self._total, self._done, self._trained = total, done, 0
        self._began = time.monotonic()
        self._bars.update(self._trials, total=total, completed=done)
        if 0 < done < total:
            self._console.print(f"{done} of {total} trials are finished, going on")

    def left_out(self, part: str, sentences: Sequence[str]) -> None:
        """Say how many examples could not be read, and of the first why."""
        more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
        self._console.print(
            visible(f"left out of {part}: {sentences[0]}{more}"),
            soft_wrap=True,
        )

    def start(self, trial: Trial) -> None:
        """Show the trial that starts."""
        self._bars.reset(
            self._epochs,
            description=self._name(trial.arm, trial.corrupted, trial.seed),
            total=self._recipe.training_of(trial.arm).epochs,
            visible=True,
        )

    def say(self, sentence: str) -> None:
        """Print a sentence about the current trial."""
        self._console.print(visible(sentence), soft_wrap=True)

    def epoch(self, row: EpochRow) -> None:
        """Show epoch and loss of the current trial."""
        note = f"loss {row.train_loss:.3f}, test accuracy {100 * row.test_accuracy:.1f} %"
        self._bars.update(self._epochs, completed=row.epoch, note=note)
        if not self._console.is_terminal and row.seconds / row.epoch > SLOW:
            self.say(f"epoch {row.epoch}: {note}, {row.seconds:,.0f} s")

    def finish(self, result: Result) -> None:
        """Count a finished trial, and say so in a line where there is no live display."""
        self._done += 1
        self._trained += 1
        left = self._left()
        self._bars.update(self._trials, completed=self._done, note=left)
        if not self._console.is_terminal:
            name = self._name(result.arm, result.corrupted, result.seed)
            self._console.print(
                f"[{self._done}/{self._total}] {name}: {100 * result.test_accuracy:.1f} % "
                f"in {result.seconds:.1f} s, {left}",
                soft_wrap=True,
            )

    def fail(self, trial: Trial, reason: str) -> None:
        """Count a trial that failed, and say why."""
        self._total -= 1
        self._bars.update(self._trials, total=self._total)
        self.say(f"failed: {self._name(trial.arm, trial.corrupted, trial.seed)}: {reason}")

    def _left(self) -> str:
        each = (time.monotonic() - self._began) / self._trained
        seconds = round(each * (self._total - self._done))
        if seconds < 60:
            return f"{seconds} s left"
        minutes = round(seconds / 60)
        return (
            f"{minutes // 60} h {minutes % 60} min left" if minutes >= 60 else f"{minutes} min left"
        )

    def _name(self, arm: str, corrupted: float, seed: int) -> str:
        title = visible(self._recipe.arms[arm].title)
        return f"{title}, {condition_name(corrupted)}, seed {seed}"


@contextmanager
def file_progress(console: Console) -> Iterator[Callable[[str, int, int | None], None]]:
    """Give a function that shows how far a file has come: bars on a terminal, else nothing."""
    tasks: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(show_speed=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(visible(name), total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield show
