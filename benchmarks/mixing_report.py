"""Write the result of ``mixing.py`` as JSON, as Markdown, and as a figure of time by batch size."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from vicinal.files import write_whole
from vicinal.reports.svg import (
    ARM_COLORS,
    LINE_STYLES,
    SvgFigure,
    arm_color,
    figure_style,
    standalone_svg,
    to_svg,
)
from vicinal.reports.table_files import markdown_table

Row = Mapping[str, Any]


def write_files(result: Row, folder: Path) -> None:
    """Write the JSON, the Markdown and the figure of a result into a folder."""
    stem = _stem(result)
    write_whole(folder / f"{stem}.svg", standalone_svg(scaling_figure(result)))
    write_whole(folder / f"{stem}.md", markdown(result))
    write_whole(folder / f"{stem}.json", json.dumps(result, indent=2) + "\n")


def markdown(result: Row) -> str:
    """Return a result as Markdown: machine, targets, cases, and time by batch size."""
    machine = ", ".join(f"{name} {value}" for name, value in result["hardware"].items())
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    others = result["others_cores"]
    used = "an unknown number of" if others is None else f"{max(others, 0):.2f}"
    met = [row["met"] for row in result["targets"]]
    parts = [
        f"# Mixing on {result['device']}, next to other libraries and a plain copy",
        f"{machine}; {result['threads']} threads; kernel {result['kernel']}; other processes used "
        f"{used} cores. {versions}.",
        f"{sum(met)} of {len(met)} targets are met.",
        *(["A quick run with small batches: only a smoke test."] if result["quick"] else []),
        "Medians and quartiles of interleaved rounds: in each round, every contender of a case has "
        "one turn, in changing order. Ratios are relative to the first contender of the case.",
        *(f"Note: {note}." for note in result["notes"]),
        "## Targets",
        markdown_table(
            ["target", "bound", "measured", ""],
            "--:-",
            [
                [
                    row["name"],
                    row["bound"],
                    short(row["measured"]),
                    "met" if row["met"] else "missed",
                ]
                for row in result["targets"]
            ],
        ),
    ]
    keys = ("case", "shape", "dtype", "unit")
    for (case, shape, dtype, unit), rows in groupby(
        result["cases"], lambda row: [row[key] for key in keys]
    ):
        parts += [
            f"## {case[0].upper()}{case[1:]}, {shape_text(shape)} {dtype}, ratio in {unit}",
            markdown_table(
                ["contender", "version", "median, ms", "quartiles", "ratio"],
                "--:::",
                [
                    [
                        row["contender"],
                        row["version"],
                        short(row["median_ms"]),
                        f"{short(row['low_ms'])} to {short(row['high_ms'])}",
                        short(row["ratio"]),
                    ]
                    for row in rows
                ],
            ),
        ]
    parts += ["## By batch size", f"![Time per call by batch size]({_stem(result)}.svg)"]
    for heading, lines in _panels(result):
        sizes = sorted({size for times in lines.values() for size in times})
        rows = [
            [name, *(short(times[size]) if size in times else "—" for size in sizes)]
            for name, times in lines.items()
        ]
        parts.append(
            markdown_table([f"{heading}, ms", *map(str, sizes)], "-" + ":" * len(sizes), rows)
        )
    return "\n\n".join(parts) + "\n"


def scaling_figure(result: Row) -> SvgFigure:
    """Plot the time per call by batch size on logarithmic axes: a panel for each shape of a row."""
    panels = _panels(result)
    names = list(dict.fromkeys(row["contender"] for row in result["scaling"]))
    height, words = math.ceil(len(panels) / 2), []
    with figure_style():
        figure = Figure(figsize=(7.2, 3.4 * height + 1.0))
        for k, (heading, lines) in enumerate(panels):
            axes = figure.add_subplot(height, 2, k + 1)
            for name, times in lines.items():
                n, ours = names.index(name), name.startswith("vicinal")
                axes.plot(
                    list(times),
                    list(times.values()),
                    "-" if ours else LINE_STYLES[n % len(LINE_STYLES)],
                    color=arm_color(n),
                    linewidth=2.6 if ours else 1.3,
                    marker="o" if n >= len(ARM_COLORS) else None,  # the colors repeat from here on
                    markersize=3,
                    label=name,
                )
            axes.set(title=f"rows of {heading}", xlabel="batch size")
            axes.set_ylabel("" if k % 2 else "ms per call")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.xaxis.set_major_locator(LogLocator(base=4))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_locator(NullLocator())
            size = max(size for times in lines.values() for size in times)
            largest = (f"{name} {short(times[size])}" for name, times in lines.items())
            words.append(f"{size} rows of {heading}, in ms: {', '.join(largest)}.")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        text = f"Time per call by batch size on {result['device']}. {' '.join(words)}"
        return to_svg(_stem(result), text, figure)


def short(number: float) -> str:
    """Round a number to three significant digits.

    Example:
        >>> [short(number) for number in (0.012345, 1.5, 387.2, 1234.5)]
        ['0.0123', '1.50', '387', '1234']
    """
    digits = 2 - math.floor(math.log10(abs(number))) if number else 0
    return f"{number:.{max(digits, 0)}f}"


def _panels(result: Row) -> list[tuple[str, dict[str, dict[int, float]]]]:
    """Return the milliseconds by batch size and contender for each shape of a row."""
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for row in result["scaling"]:
        lines = panels.setdefault(f"{shape_text(row['row'])} {row['dtype']}", {})
        lines.setdefault(row["contender"], {})[row["batch"]] = row["median_ms"]
    return list(panels.items())


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as in 256x3x32x32."""
    return "x".join(map(str, shape))


def _stem(result: Row) -> str:
    return f"mixing-{result['device']}" + "-without-c" * (result["kernel"] == "portable")
