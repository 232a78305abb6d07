"""The report of the benchmark: for the terminal, as Markdown, as JSON, and as a picture."""

import contextlib
import json as json_module
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vicinal.bench import measure, measured_on
from vicinal.errors import UserError
from vicinal.escaping import visible
from vicinal.files import write_whole
from vicinal.reports.svg import (
    ARMS,
    LINES,
    Picture,
    arm_color,
    as_picture,
    standalone,
    styled,
)
from vicinal.reports.terminal import Terminal

Row = Mapping[str, Any]

_NAME = 36
"""Columns of the terminal for the name of a contender."""

_HOW = (
    "Medians of interleaved rounds: in each, every contender of a case has one turn, in changing "
    "order; with their quartiles. A ratio is taken within its case. A stand-in is written for "
    "this benchmark after what the library computes, and is not the library."
)
_QUICK = "A quick run, with few rounds and small batches: it shows that all works, and no more."


def run_bench(
    *, out: Path | None = None, device: str | None = None, quick: bool = False, json: bool = False
) -> None:
    """Measure, print the table, and write ``mixing-<device>.json``, ``.md`` and ``.svg``.

    Args:
        out: folder for the files; none are written without it.
        device: "cpu" or "cuda"; without it the GPU where there is one.
        quick: fewer rounds, smaller batches.
        json: print the result as JSON, and nothing else.

    Raises:
        UserError: if there is no such device, or the folder cannot be written.
    """
    chosen = measured_on(device)
    if out is not None:
        _make_folder(out)
    with _telling(Terminal(stderr=True)) as tell:
        result = measure(chosen, quick=quick, tell=tell)
    if out is not None:
        write_files(result, out)
    if json:
        sys.stdout.write(json_text(result))
        return
    console = Terminal()
    print_result(result, console)
    if out is not None:
        console.print(visible(f"files: {out / _stem(result)}.*"), soft_wrap=True)


def write_files(result: Row, folder: Path) -> None:
    """Write the JSON, the Markdown and the picture of a result into a folder.

    Raises:
        UserError: if it cannot be written.
    """
    stem = _stem(result)
    write_whole(folder / f"{stem}.svg", standalone(scaling_picture(result)))
    write_whole(folder / f"{stem}.md", markdown(result))
    write_whole(folder / f"{stem}.json", json_text(result))


def json_text(result: Row) -> str:
    """Return a result as JSON."""
    return json_module.dumps(result, indent=2) + "\n"


def print_result(result: Row, console: Console) -> None:
    """Print the cases and the targets; made for 80 columns."""
    for heading, rows in _by_case(result["cases"]):
        table = Table(title=heading, title_justify="left", title_style="bold", box=None, padding=0)
        table.add_column("", width=_NAME, no_wrap=True)
        table.add_column("median, ms", width=11, justify="right")
        table.add_column("quartiles", width=19, justify="right")
        table.add_column("ratio", width=8, justify="right")
        for row in rows:
            cells = (_short(row["median_ms"]), _quartiles(row), _short(row["ratio"]))
            table.add_row(row["contender"], *cells)
        console.print(table)
        console.print()
    targets = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    targets.add_column("target", width=_NAME - 4)
    targets.add_column("wanted", width=28)
    targets.add_column("measured", justify="right", no_wrap=True)
    targets.add_column("", no_wrap=True)
    for name, found in groupby(result["targets"], key=lambda row: row["name"]):
        for k, row in enumerate(found):
            style = "green" if row["met"] else "bold red"
            verdict = Text(_met(row), style)
            targets.add_row("" if k else name, row["wanted"], _short(row["measured"]), verdict)
    if result["targets"]:
        console.print(targets)
    for sentence in _sentences(result):
        console.print(sentence, highlight=False, markup=False)


def markdown(result: Row) -> str:
    """Return a result as Markdown: what is said of it, the targets, the cases, the batch sizes."""
    machine = ", ".join(f"{name} {value}" for name, value in result["hardware"].items())
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    parts = [
        f"# Mixing on {result['device']}, beside its peers and a plain copy",
        f"{machine}; {result['threads']} threads; kernel {result['kernel']}; {_others(result)}. "
        f"{versions}.",
        *_sentences(result),
        "## Targets",
        _table(
            ["target", "wanted", "measured", "against", ""],
            "--:--",
            [
                [
                    row["name"],
                    row["wanted"],
                    _short(row["measured"]),
                    row["against"] or "—",
                    _met(row),
                ]
                for row in result["targets"]
            ],
        ),
    ]
    for heading, rows in _by_case(result["cases"]):
        parts += [
            f"## {heading[0].upper()}{heading[1:]}",
            _table(
                ["contender", "version", "median, ms", "quartiles", "ratio"],
                "--:::",
                [
                    [
                        row["contender"],
                        row["version"],
                        _short(row["median_ms"]),
                        _quartiles(row),
                        _short(row["ratio"]),
                    ]
                    for row in rows
                ],
            ),
        ]
    parts += ["## By batch size", f"![Time per call by batch size]({_stem(result)}.svg)"]
    for heading, rows in _panels(result):
        sizes = list(dict.fromkeys(row["batch"] for row in rows))
        parts.append(
            _table(
                [f"{heading}, ms", *map(str, sizes)],
                "-" + ":" * len(sizes),
                [
                    [name, *(_short(times[size]) if size in times else "—" for size in sizes)]
                    for name, times in _lines(rows).items()
                ],
            )
        )
    return "\n\n".join(parts) + "\n"


def scaling_picture(result: Row) -> Picture:
    """Draw the time per call by batch size, on logarithmic axes: a panel for each kind of row."""
    panels = _panels(result)
    names = list(dict.fromkeys(row["contender"] for row in result["scaling"]))
    height = math.ceil(len(panels) / 2)
    with styled():
        figure = Figure(figsize=(7.2, 3.4 * height + 1.0))
        for k, (heading, rows) in enumerate(panels):
            axes = figure.add_subplot(height, 2, k + 1)
            _draw(axes, rows, names)
            axes.set_title(f"rows of {heading}")
            axes.set_ylabel("" if k % 2 else "ms per call")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        words = " ".join(_largest(heading, rows) for heading, rows in panels)
        text = f"Time per call by batch size on {result['device']}. {words}"
        return as_picture(_stem(result), text, figure)


def _draw(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Draw a line for each contender; its place in ``names`` says how it looks."""
    for name, milliseconds in _lines(rows).items():
        n, ours = names.index(name), name.startswith("vicinal")
        axes.plot(
            list(milliseconds),
            list(milliseconds.values()),
            "-" if ours else LINES[n % len(LINES)],
            color=arm_color(n),
            linewidth=2.6 if ours else 1.3,
            marker="o" if n >= len(ARMS) else None,  # the colors begin again
            markersize=3,
            label=name,
        )
    axes.set_xlabel("batch size")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=4))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _largest(heading: str, rows: Sequence[Row]) -> str:
    """Return what a panel says of its largest batch."""
    size = max(row["batch"] for row in rows)
    times = (f"{r['contender']} {_short(r['median_ms'])}" for r in rows if r["batch"] == size)
    return f"{size} rows of {heading}, in ms: {', '.join(times)}."


def _make_folder(folder: Path) -> None:
    """Make the folder before anything is measured, not after."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be written ({error.strerror}); choose another with --out"
        ) from None


@contextlib.contextmanager
def _telling(console: Console) -> Iterator[Callable[[str], None]]:
    """Show what is measured: as a status on a terminal, as a line each anywhere else."""
    if not console.is_terminal:
        yield lambda sentence: console.print(
            f"measuring: {sentence}", highlight=False, markup=False, soft_wrap=True
        )
        return
    with console.status("measuring") as status:
        yield lambda sentence: status.update(f"measuring: {sentence}")


def _sentences(result: Row) -> list[str]:
    """Return what has to be known to read the result, the answer first."""
    missed = [row for row in result["targets"] if not row["met"]]
    count = len(result["targets"])
    return [
        f"{count - len(missed)} of {count} targets are met.",
        *([_QUICK] if result["quick"] else []),
        _HOW,
        *(f"Note: {note}." for note in result["notes"]),
    ]


def _by_case(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows of each case under its heading."""
    grouped = groupby(
        rows, key=lambda row: (row["case"], tuple(row["shape"]), row["dtype"], row["unit"])
    )
    return [
        (f"{case}, {_shape(shape)} {dtype}, ratio in {unit}", list(found))
        for (case, shape, dtype, unit), found in grouped
    ]


def _panels(result: Row) -> list[tuple[str, list[Row]]]:
    """Return the rows of the scaling for each kind of row, under its heading."""
    grouped = groupby(result["scaling"], key=lambda row: (tuple(row["row"]), row["dtype"]))
    return [(f"{_shape(row)} {dtype}", list(found)) for (row, dtype), found in grouped]


def _lines(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Return the milliseconds for each batch size, for each contender."""
    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        lines.setdefault(row["contender"], {})[row["batch"]] = row["median_ms"]
    return lines


def _table(head: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a column is to the right where ``alignment`` has a colon."""
    rule = ["--:" if sign == ":" else "---" for sign in alignment]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def _short(number: float) -> str:
    """Return a number with three digits that count.

    Example:
        >>> [_short(number) for number in (0.012345, 1.5, 387.2, 1234.5)]
        ['0.0123', '1.50', '387', '1234']
    """
    digits = 2 - math.floor(math.log10(abs(number))) if number else 0
    return f"{number:.{max(digits, 0)}f}"


def _quartiles(row: Row) -> str:
    return f"{_short(row['low_ms'])} to {_short(row['high_ms'])}"


def _others(result: Row) -> str:
    cores = result["others_cores"]
    used = "an unknown number of" if cores is None else f"{max(cores, 0):.2f}"
    return f"other processes used {used} cores"


def _met(row: Row) -> str:
    return "met" if row["met"] else "missed"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _stem(result: Row) -> str:
    return f"mixing-{result['device']}"
