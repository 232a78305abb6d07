"""The report of a study of GANs: one page, a table and a summary, made from its results."""

import itertools
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.console import Console
from rich.text import Text

from vicinal.files import write_whole
from vicinal.generative.measures import EDGE, FAIR, NEAR
from vicinal.reports.gan_figures import TITLES, Results, gan_curve, gan_samples
from vicinal.reports.page import render
from vicinal.reports.study_cells import Table
from vicinal.reports.study_report import PAGE
from vicinal.reports.summary_values import bracketed, number_text
from vicinal.reports.svg import SvgFigure, standalone_svg
from vicinal.reports.table_files import markdown_table
from vicinal.reports.terminal import plain_table
from vicinal.studies.gan import MEASURES, SAMPLES, GanStudy

_LOSSES = {
    "minimax": "minus that of the discriminator, as published (on blends for “mixup (paper)”, "
    "without mixing for the others)",
    "non-saturating": "the non-saturating one, without mixing",
}


def write_gan_report(study: GanStudy, summary: Mapping[str, Any]) -> None:
    """Write the page, its figures, ``table.md`` and ``summary.json``.

    Raises:
        UserError: if a file cannot be written.
    """
    results = study.results()
    figures: list[SvgFigure] = []
    sections = {}
    for data in study.recipe.gan.data:
        arms: Results = {
            str(arm): [one for trial, one in results.items() if trial[:2] == (data, arm)]
            for arm in study.recipe.gan.arms
        }
        curves = [gan_curve(summary, data, arms, name) for name in MEASURES]
        samples = gan_samples(summary, data, arms)
        sections[data] = {"curves": curves, "samples": samples}
        figures += curves + samples
    page = render(
        "gan.html.j2",
        summary=summary,
        answer=gan_answer(summary),
        measures=measures_table(summary),
        differences=differences_table(summary),
        notes=gan_notes(summary),
        sections=sections,
        recipe=(study.folder / "recipe.toml").read_text("utf-8"),
    )
    files = {f"figures/{one.name}.svg": standalone_svg(one) for one in figures}
    files |= {PAGE: page, "table.md": _markdown(summary)}
    files["summary.json"] = json.dumps(summary, indent=2) + "\n"
    for name, text in files.items():
        write_whole(study.folder / name, text)


def gan_answer(summary: Mapping[str, Any]) -> str:
    """Return the verdicts on each arm as sentences."""
    base, rows = TITLES[summary["baseline"]], summary["rows"]
    sentences = []
    for arm in summary["gan"]["arms"][1:]:
        found: dict[str, dict[str, list[str]]] = {}
        for row in (row for row in rows if row["arm"] == arm):
            for name, one in row["measures"].items():
                measure = MEASURES[name].title.removesuffix(", %")
                found.setdefault(one["verdict"], {}).setdefault(measure, []).append(row["data"])
        clauses = [
            f"{verdict} in "
            + ", ".join(f"{name} ({', '.join(where)})" for name, where in found[verdict].items())
            for verdict in ("better", "worse")
            if verdict in found
        ]
        counts = {verdict: sum(map(len, some.values())) for verdict, some in found.items()}
        total = sum(counts.values())
        if "no evidence" in counts:
            clauses.append(f"no evidence in {counts['no evidence']} of {total} comparisons")
        if "withheld" in counts:
            why = "trials diverged or are missing"
            why = "one seed gives no interval" if summary["seeds"] == 1 else why
            clauses.append(f"no verdict in {counts['withheld']}, as {why}")
        sentences.append(f"{TITLES[arm]}, compared with {base}: {'; '.join(clauses)}.")
    text = " ".join(one[0].upper() + one[1:] for one in sentences)
    diverged = {
        arm: sum(len(row["diverged"]) for row in rows if row["arm"] == arm)
        for arm in summary["gan"]["arms"]
    }
    by_arm = ", ".join(f"{n} of {TITLES[arm]}" for arm, n in diverged.items() if n)
    total = sum(row["n"] for row in rows)
    ending = f"{sum(diverged.values()) or 'None'} of {total} GANs diverged"
    return f"{text} {ending}{f': {by_arm}' if by_arm else ''}.".strip()


def measures_table(summary: Mapping[str, Any]) -> Table:
    """Return the measures after the last iteration, a row for each arm on each mixture."""
    titles = [one["title"] for one in summary["measures"].values()]
    rows = []
    for data, group in itertools.groupby(summary["rows"], lambda row: row["data"]):
        for row in group:
            cells = [_interval(row["measures"][name], name) for name in MEASURES]
            diverged = f"{len(row['diverged'])} of {row['n']}"
            seconds = "—" if row["seconds"] is None else f"{row['seconds']:,.0f}"
            rows.append([data, TITLES[row["arm"]], *cells, diverged, seconds])
        real = [_number(summary["real"][data][name], name) for name in MEASURES]
        rows.append([data, "real samples", *real, "—", "—"])
    return ["mixture", "arm", *titles, "diverged", "seconds"], rows


def differences_table(summary: Mapping[str, Any]) -> Table:
    """Return the differences from the baseline, a row for each measure of each other arm."""
    rows = []
    for row in (row for row in summary["rows"] if row["arm"] != summary["baseline"]):
        for name, one in row["measures"].items():
            difference = one["difference"]
            cell = "—"
            if difference is not None:
                ratio = MEASURES[name].logarithmic
                cell = _interval(difference | {"value": difference["mean"]}, name, sign=not ratio)
                cell = f"× {cell}" if ratio else cell
            p = "—" if one["p"] is None else f"{one['p']:.2g}"
            title = MEASURES[name].title
            rows.append([row["data"], TITLES[row["arm"]], title, cell, p, one["verdict"]])
    base = TITLES[summary["baseline"]]
    head = ["mixture", "arm", "measure", f"difference from {base}", "p, adjusted", "verdict"]
    return head, rows


def gan_notes(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences on how it was measured, and on each GAN that diverged."""
    gan = summary["gan"]
    after = f"after {gan['iterations']:,} iterations of the generator"
    how = f"Measured with one seed, {after}, which gives no interval and no verdict."
    if summary["seeds"] > 1:
        how = (
            f"Means over {summary['seeds']} seeds with 95% intervals over seeds (Student's t), "
            f"{after}. Differences are paired by seed; p-values are adjusted for all comparisons "
            "of the study (Holm)."
        )
    notes = [
        how,
        f"Of {SAMPLES:,} samples, those within {NEAR:g} std of the nearest mode are good; the std "
        f"of a mode is {gan['std']:g}. A mode is found if its good samples are at least {FAIR:.0%} "
        "of its fair share.",
        f"The energy distance is that to {SAMPLES:,} fresh real samples, in the unit of the data. "
        "Its means are geometric, and arms are compared by ratios (×), since a single GAN that "
        "leaves the data would decide an ordinary mean. “Real samples” has that of real samples to "
        "others, which is not 0 either.",
        f"The loss of the generator is {_LOSSES[gan['generator_loss']]}.",
        "A GAN has diverged if its samples are not finite (it then counts as no mode and no good "
        "sample, and there is no verdict on the energy distance), if at the end all of them are "
        f"nearly one point, or if most are farther than {EDGE:g} from the origin along an axis, "
        "outside of the figures. The latter two are measured as they are.",
    ]
    return notes + [
        f"Diverged: {TITLES[row['arm']]}, {row['data']}, {seed}: {reason}."
        for row in summary["rows"]
        for seed, reason in row["diverged"].items()
    ]


def print_gan_study(summary: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a study, and its answer."""
    for head, rows in (measures_table(summary), differences_table(summary)):
        table = plain_table(*head[1:], padding=0)
        for data, group in itertools.groupby(rows, lambda row: row[0]):
            table.add_section()
            table.add_row(Text(data, "bold"))
            for row in group:
                table.add_row(*map(Text, row[1:]))
        console.print(table)
    console.print(Text(gan_answer(summary)))


def _markdown(summary: Mapping[str, Any]) -> str:
    parts = [gan_answer(summary)]
    for head, rows in (measures_table(summary), differences_table(summary)):
        parts.append(markdown_table(head, "-" * len(head), rows))
    parts.append("\n".join(f"- {note}" for note in gan_notes(summary)))
    return "\n\n".join(parts) + "\n"


def _number(value: float | None, name: str, *, sign: bool = False) -> str:
    if value is None:
        return "—"
    if name == "energy":
        return f"{value:.3f}"
    return number_text(value, percent=True, sign=sign)


def _interval(found: Mapping[str, Any], name: str, *, sign: bool = False) -> str:
    return bracketed(found, partial(_number, name=name, sign=sign))
