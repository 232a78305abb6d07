"""What is said of one training, and of the scores of a network."""

from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from vicinal.escaping import visible
from vicinal.studies import EpochRow, Result
from vicinal.training.scoring import Scores
from vicinal.training.verdict_problems import constant_predictor


class TrainProgress:
    """A bar on a terminal, a line an epoch in a log.

    Args:
        console: where to.
        epochs: how many there will be.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        """Begin at nought."""
        self._console, self._epochs = console, epochs
        self._bars = Progress(
            TextColumn("epoch {task.completed}/{task.total}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("", total=epochs, note="")

    def __enter__(self) -> Self:
        """Show."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bars.stop()

    def epoch(self, row: EpochRow) -> None:
        """Show an epoch."""
        note = (
            f"loss {row.train_loss:.3f}, test accuracy {100 * row.test_accuracy:.2f} %, "
            f"{row.seconds:,.0f} s"
        )
        self._bars.update(self._task, completed=row.epoch, note=note)
        if not self._console.is_terminal:
            self.say(f"epoch {row.epoch}/{self._epochs}: {note}")

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        self._console.print(visible(sentence), soft_wrap=True)


def print_result(result: Result, checkpoint: str, console: Console) -> None:
    """Say what came of a training, and whether it is above the most frequent class."""
    epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs} epochs"
    console.print(
        f"test accuracy {100 * result.test_accuracy:.2f} %, loss {result.test_loss:.4f}, after "
        f"{epochs} in {result.seconds:,.0f} s\ncheckpoint: {visible(checkpoint)}",
        soft_wrap=True,
    )
    if facts := result.origin.get("data"):
        constant = constant_predictor(facts)
        if result.test_accuracy <= constant.accuracy:
            console.print(
                f"warning: always answering “{visible(constant.name)}”, the most frequent training "
                f"class, is right as often ({100 * constant.accuracy:.2f} %)",
                soft_wrap=True,
            )


def scores_as_plain(scores: Scores) -> dict[str, Any]:
    """Return scores for JSON."""
    return scores._asdict() | {"worst": [pair._asdict() for pair in scores.worst]}


def print_scores(scores: Scores, console: Console) -> None:
    """Print scores, and the worst confusions, as tables."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_row("examples", f"{scores.examples:,}")
    table.add_row("accuracy", f"{100 * scores.accuracy:.2f} %")
    table.add_row("always the most frequent class", f"{100 * scores.majority:.2f} %")
    if scores.top5 is not None:
        table.add_row("among the five highest", f"{100 * scores.top5:.2f} %")
    table.add_row("negative log-likelihood", f"{scores.loss:.4f} nats")
    table.add_row("calibration error (ECE)", f"{100 * scores.calibration_error:.2f} %")
    console.print(table)
    if scores.worst:
        worst = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, title="worst pairs", title_justify="left"
        )
        for title in ("class", "taken for"):
            worst.add_column(title)
        worst.add_column("examples", justify="right")
        for pair in scores.worst:
            worst.add_row(
                Text(visible(pair.true)), Text(visible(pair.answered)), str(pair.examples)
            )
        console.print(worst)
