"""Terminal output of a finished training, and of the evaluation of a checkpoint."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vicinal.escaping import visible
from vicinal.studies import Result
from vicinal.training.recipe_warnings import constant_predictor
from vicinal.training.score import Scores


def print_result(result: Result, checkpoint: str, console: Console) -> None:
    """Print the result of a training; warn if it is not above the most frequent class."""
    epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs} epochs"
    lines = [
        f"test accuracy {100 * result.test_accuracy:.2f} %, loss {result.test_loss:.4f}, after "
        f"{epochs} in {result.seconds:,.0f} s",
        f"checkpoint: {visible(checkpoint)}",
    ]
    if facts := result.origin.get("data"):
        constant = constant_predictor(facts)
        if result.test_accuracy <= constant.accuracy:
            lines.append(
                f"warning: always predicting “{visible(constant.name)}”, the most frequent "
                f"training class, is at least as accurate ({100 * constant.accuracy:.2f} %)"
            )
    console.print("\n".join(lines), soft_wrap=True)


def scores_as_plain(scores: Scores) -> dict[str, Any]:
    """Return scores as plain values for JSON."""
    return scores._asdict() | {"worst": [pair._asdict() for pair in scores.worst]}


def print_scores(scores: Scores, console: Console) -> None:
    """Print the metrics of a checkpoint, and the most confused pairs of classes."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_row("examples", f"{scores.examples:,}")
    table.add_row("accuracy", f"{100 * scores.accuracy:.2f} %")
    table.add_row("always the most frequent class", f"{100 * scores.majority:.2f} %")
    if scores.top5 is not None:
        table.add_row("top-5 accuracy", f"{100 * scores.top5:.2f} %")
    table.add_row("negative log-likelihood", f"{scores.loss:.4f} nats")
    table.add_row("calibration error (ECE)", f"{100 * scores.calibration_error:.2f} %")
    console.print(table)
    if scores.worst:
        title = "most confused pairs"
        worst = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
        worst.add_column("class")
        worst.add_column("predicted as")
        worst.add_column("examples", justify="right")
        for pair in scores.worst:
            worst.add_row(
                Text(visible(pair.true)), Text(visible(pair.predicted)), str(pair.examples)
            )
        console.print(worst)
