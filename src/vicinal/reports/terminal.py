"""Output on a terminal: a console that escapes foreign text, and the tables that commands print."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from vicinal.data.catalog import SOURCES
from vicinal.escaping import visible

if TYPE_CHECKING:  # listing the sources must not wait for PyTorch
    from vicinal.training.score import Scores
    from vicinal.training.trial_result import Result

_MOST_CLASSES = 20
_MOST_SENTENCES = 5


class Terminal(Console):
    """Rich's console: escape sequences, markup and emoji codes in a text have no effect.

    Args:
        settings: as for ``rich.console.Console``, such as ``stderr=True``.
    """

    def __init__(self, **settings: Any) -> None:
        """Write to the standard output by default."""
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render anything, with control characters of texts escaped."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text, keep_lines=True), style, control)


def plain_table(*head: str, **settings: Any) -> Table:
    """Return a table with a line below its head; the text of the first column is on the left."""
    left: Any = {"title_justify": "left", "caption_justify": "left"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, **left, **settings)
    for k, name in enumerate(head):
        table.add_column(name, justify="right" if k else "left")
    return table


def print_sources(console: Terminal) -> None:
    """Print how data sets are named."""
    width = max(len(name + source.rest) for name, source in SOURCES.items())
    for name, source in SOURCES.items():
        console.print(f"{name + source.rest:{width}}  {source.holds}")


def print_description(spec: str, described: Mapping[str, Any], console: Terminal) -> None:
    """Print the description of a data set by ``vicinal.data.describe``."""
    inputs, targets, splits = (described[key] for key in ("inputs", "targets", "splits"))
    classes = described["classes"]
    mean, std = (", ".join(f"{n:.4g}" for n in inputs[key]) for key in ("mean", "std"))
    moments = f"mean {mean}, std {std}" if inputs["dtype"] != "int64" else "tokens of texts"
    shape = " x ".join(map(str, inputs["shape"]))
    where, sample = ("", "") if inputs["in_memory"] else ("; read from files", " (of a sample)")
    if classes:
        predicted = f"{len(classes)} classes"
    elif targets["shape"] and targets["shape"][0] > 1 and targets["zero_or_one"]:
        predicted = f"{targets['shape'][0]} labels for each example, 0 or 1 (multi-label)"
    else:
        wide = f", {targets['shape'][0]} each" if targets["shape"] else ""
        predicted = f"real values, {targets['lowest']:.6g} to {targets['highest']:.6g}{wide}"
    console.print(
        f"{visible(spec)}\n"
        f"inputs   {shape} {inputs['dtype']}{where}\n"
        f"values   {inputs['lowest']:.6g} to {inputs['highest']:.6g}, "
        f"{moments}{sample}\n"
        f"targets  {predicted}"
    )
    console.print(_counts(classes, splits))
    for note in described["notes"]:
        mark = "warning: " if note["doubtful"] else ""
        console.print(f"{mark}{visible(note['text'])}", soft_wrap=True)
    for name, split in splits.items():
        if skipped := split["skipped"]:
            console.print(f"skipped in {name}: {len(skipped)}")
            for sentence in skipped[:_MOST_SENTENCES]:
                console.print(f"  {visible(sentence)}", soft_wrap=True)
            if (more := len(skipped) - _MOST_SENTENCES) > 0:
                console.print(f"  and {more} more; --json lists all of them")


def _counts(classes: list[str], splits: Mapping[str, Any]) -> Table:
    """Return a table of the examples of each class; of many classes, the largest and smallest."""
    table = plain_table("examples", *splits)
    table.add_row("all", *(f"{split['count']:,}" for split in splits.values()))
    shown, half = list(range(len(classes))), _MOST_CLASSES // 2
    if omitted := max(0, len(classes) - _MOST_CLASSES):
        shown.sort(key=lambda k: -splits["train"]["of_each_class"][k])
        shown = shown[:half] + shown[-half:]
    for n, k in enumerate(shown):
        if omitted and n == half:
            table.add_row(f"... {omitted} more")
        counts = (f"{split['of_each_class'][k]:,}" for split in splits.values())
        table.add_row(visible(classes[k]), *counts)
    return table


def print_result(result: "Result", checkpoint: str, console: Terminal) -> None:
    """Print the result of a trial; warn if a constant prediction is at least as good."""
    from vicinal.training.metrics import METRICS, metric_text

    epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs} epochs"
    lines = [
        f"test {metric_text(result.metric, result.test_metric)}, loss {result.test_loss:.4f}, "
        f"after {epochs} in {result.seconds:,.0f} s",
        f"checkpoint: {visible(checkpoint)}",
    ]
    sign = 1 if METRICS[result.metric].higher else -1
    # Constant class frequencies have a calibration error near zero.
    as_good = sign * result.test_metric <= sign * result.constant_metric
    if as_good and result.metric != "ece":
        lines.append(
            "warning: a constant prediction is at least as good "
            f"({metric_text(result.metric, result.constant_metric)})"
        )
    console.print("\n".join(lines), soft_wrap=True)


def print_scores(scores: "Scores", console: Terminal) -> None:
    """Print the metrics of a checkpoint, and the most confused pairs of classes."""
    from vicinal.training.metrics import METRICS, value_text

    table = plain_table(f"{scores.examples:,} examples", "network", "constant prediction")
    for name, value in scores.metrics.items():
        both = (value, scores.constant[name])
        cells = ("undefined" if one is None else value_text(name, one) for one in both)
        table.add_row(METRICS[name].title, *cells)
    console.print(table)
    if scores.skipped:
        console.print(
            f"warning: {len(scores.skipped):,} examples were skipped: "
            f"{visible(scores.skipped[0])} ...",
            soft_wrap=True,
        )
    if scores.worst:
        worst = plain_table(title="most confused pairs")
        worst.add_column("class")
        worst.add_column("predicted as")
        worst.add_column("examples", justify="right")
        for pair in scores.worst:
            worst.add_row(visible(pair.true), visible(pair.predicted), str(pair.examples))
        console.print(worst)
