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
from vicinal.training.trial_result import Trial, read_metrics

PAGE, SUMS = "report.html", "SHA256SUMS"


def is_current(study: Study, summary: Mapping[str, Any]) -> bool:
    """Say whether the folder has a report of this summary, and none of its files is damaged."""
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
    from vicinal.reports import study_figures
    from vicinal.reports.image_figures import blends_figure
    from vicinal.reports.study_tables import csv_text, markdown
    from vicinal.reports.svg import standalone_svg

    recipe, folder, results = study.recipe, study.folder, study.results()
    rates = recipe.corrupted_labels
    histories = {
        (arm, rate): [
            read_metrics(study.trial_folder(trial))
            for seed in range(recipe.seeds)
            if (trial := Trial(arm, rate, seed)) in results
        ]
        for arm in recipe.arms
        for rate in rates
    }
    raw, summary = summary, with_text(summary, visible)

    def curve(rate: float, field: str) -> Any:
        return study_figures.curve_figure(summary, histories, rate, field)

    accuracy = study_figures.accuracy_figure(summary)
    memorization = [curve(rate, "memorized") for rate in rates if rate]
    losses = ("train_loss", "test_loss", "test_accuracy")
    curves = {condition_name(rate): [curve(rate, field) for field in losses] for rate in rates}
    stored = folder / "examples.npz"
    examples = blends_figure(stored) if stored.exists() else None
    figures = [accuracy, *memorization, *itertools.chain(*curves.values())]
    figures += [examples] if examples else []
    machines = [with_text(result.hardware, visible) for result in results.values()]
    files = {f"figures/{figure.name}.svg": standalone_svg(figure) for figure in figures}
    files[PAGE] = html(
        summary,
        recipe=visible(resolved_text(recipe), keep_lines=True),
        machines=[m for k, m in enumerate(machines) if m not in machines[:k]],
        accuracy=accuracy,
        memorization=memorization,
        curves=curves,
        examples=examples,
    )
    files["table.md"] = markdown(summary)
    files["table.csv"] = csv_text(summary["rows"])
    if "published" in summary:
        files["published.csv"] = csv_text(summary["published"])
    files["summary.json"] = summary_text(raw)
    sums = ""
    for name, text in files.items():
        write_whole(folder / name, text)
        sums += f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
    write_whole(folder / SUMS, sums)


def html(summary: Mapping[str, Any], **content: Any) -> str:
    """Return the page, which needs no other file: the answer first, then what it is based on.

    Args:
        summary: of the study.
        content: what else the template shows: figures, the recipe, and the machines.
    """
    import jinja2

    from vicinal.reports import study_text, svg

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vicinal.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        summary=summary, text=study_text, light=svg.COLORS_LIGHT, dark=svg.COLORS_DARK, **content
    )
