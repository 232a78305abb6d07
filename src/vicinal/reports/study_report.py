"""The report of a study: one HTML page, tables and figures, made from its results alone."""

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

from vicinal.escaping import visible, with_text
from vicinal.files import write_whole
from vicinal.studies import Study, condition_name
from vicinal.studies.summary import summary_text
from vicinal.training.recipe import resolved_text
from vicinal.training.trial_result import read_metrics

PAGE, SUMS = "report.html", "SHA256SUMS"


def is_current(study: Study, summary: Mapping[str, Any]) -> bool:
    """Return whether the folder has a report of this summary, without a damaged file."""
    folder = study.folder
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
        written = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        contents = {name: (folder / name).read_bytes() for name in written}
    except (OSError, ValueError):
        return False
    return contents.get("summary.json") == summary_text(summary).encode() and all(
        written[name] == hashlib.sha256(content).hexdigest() for name, content in contents.items()
    )


def write_report(study: Study, summary: Mapping[str, Any]) -> None:
    """Write ``figures/*.svg``, ``table.md``, ``table.csv``, ``report.html`` and ``summary.json``.

    If the recipe has published rows, ``published.csv`` has them too. ``SHA256SUMS`` is written
    last, so that ``is_current`` notices a file that is missing or damaged.

    Raises:
        UserError: if a file cannot be written, or the metrics of a trial cannot be read.
    """
    # Showing a finished study does not need matplotlib, which takes long to import.
    import jinja2

    from vicinal.reports import study_text, svg
    from vicinal.reports.image_figures import blends_figure
    from vicinal.reports.study_figures import curve_figure, metric_figure
    from vicinal.reports.study_tables import csv_rows, csv_text, markdown

    recipe, folder, results = study.recipe, study.folder, study.results()
    rates = recipe.corrupted_labels
    histories = {
        (arm, rate): [
            read_metrics(study.trial_folder(trial), result.metric)
            for trial, result in results.items()
            if trial[:2] == (arm, rate)
        ]
        for arm in recipe.arms
        for rate in rates
    }
    shown = with_text(summary, visible)

    def curve(rate: float, field: str) -> Any:
        return curve_figure(shown, histories, rate, field)

    metric = metric_figure(shown)
    memorization = [curve(rate, "memorized") for rate in rates if rate]
    fields = ("train_loss", "test_loss", "test_metric")
    curves = {condition_name(rate): [curve(rate, field) for field in fields] for rate in rates}
    stored = folder / "examples.npz"
    examples = [blends_figure(stored)] if stored.exists() else []
    figures = [metric, *memorization, *itertools.chain(*curves.values()), *examples]
    machines = [with_text(result.hardware, visible) for result in results.values()]
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("vicinal.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.j2")
    files = {f"figures/{figure.name}.svg": svg.standalone_svg(figure) for figure in figures}
    files[PAGE] = template.render(
        summary=shown,
        text=study_text,
        light=svg.COLORS_LIGHT,
        dark=svg.COLORS_DARK,
        recipe=visible(resolved_text(recipe), keep_lines=True),
        machines=[m for k, m in enumerate(machines) if m not in machines[:k]],
        metric=metric,
        memorization=memorization,
        curves=curves,
        examples=examples,
    )
    files["table.md"] = markdown(shown)
    files["table.csv"] = csv_text(csv_rows(summary))
    if "published" in summary:
        files["published.csv"] = csv_text(summary["published"])
    files["summary.json"] = summary_text(summary)
    sums = ""
    for name, text in files.items():
        write_whole(folder / name, text)
        sums += f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
    write_whole(folder / SUMS, sums)
