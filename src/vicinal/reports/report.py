"""Writing a report: reads the results of a study, and nothing else."""

from collections.abc import Mapping
from typing import Any

from vicinal.files import write_whole
from vicinal.studies import Study
from vicinal.studies.results import Trial, read_metrics
from vicinal.studies.summary import summary_text
from vicinal.training.recipe import resolved_text

PAGE = "report.html"


def is_current(study: Study, summary: Mapping[str, Any]) -> bool:
    """Say whether the folder holds a whole report of this summary already."""
    path = study.folder / "summary.json"
    others = [PAGE, "table.md", "table.csv", *(["published.csv"] if study.recipe.published else [])]
    return (
        all((study.folder / name).exists() for name in others)
        and path.exists()
        and path.read_text("utf-8") == summary_text(summary)
    )


def write_report(study: Study, summary: Mapping[str, Any]) -> None:
    """Write ``figures/*.svg``, ``table.md``, ``table.csv``, ``report.html`` and ``summary.json``.

    Where the recipe has published rows, ``published.csv`` has them. The summary comes last: where
    it is, the rest is.

    Raises:
        UserError: if one of them cannot be written, or a trial's metrics cannot be read.
    """
    # matplotlib takes its time, which showing a finished study can do without.
    from vicinal.reports.drawing import standalone
    from vicinal.reports.figures import (
        accuracy_picture,
        curve_pictures,
        examples_picture,
        memorisation_picture,
    )
    from vicinal.reports.page import page
    from vicinal.reports.tables import csv_text, markdown
    from vicinal.studies import condition_name

    recipe, folder = study.recipe, study.folder
    histories = {
        (arm, corrupted): [
            read_metrics(study.trial_folder(Trial(arm, corrupted, seed)))
            for seed in range(recipe.seeds)
        ]
        for arm in recipe.arms
        for corrupted in recipe.corrupted_labels
    }
    rates = recipe.corrupted_labels
    accuracy = accuracy_picture(summary)
    memorisation = [memorisation_picture(summary, histories, rate) for rate in rates if rate]
    curves = [(condition_name(r), curve_pictures(summary, histories, r)) for r in rates]
    kept = folder / "examples.npz"
    examples = examples_picture(kept) if kept.exists() else None
    pictures = [accuracy, *memorisation, *(one for _, several in curves for one in several)]
    for picture in [*pictures, examples] if examples else pictures:
        write_whole(folder / "figures" / f"{picture.name}.svg", standalone(picture))
    machines = [result.hardware for result in study.results().values()]
    html = page(
        summary,
        recipe_text=resolved_text(recipe),
        machines=[m for k, m in enumerate(machines) if m not in machines[:k]],
        accuracy=accuracy,
        memorisation=memorisation,
        curves=curves,
        examples=examples,
    )
    write_whole(folder / "table.md", markdown(summary))
    write_whole(folder / "table.csv", csv_text(summary["rows"]))
    if "published" in summary:
        write_whole(folder / "published.csv", csv_text(summary["published"]))
    write_whole(folder / PAGE, html)
    write_whole(folder / "summary.json", summary_text(summary))
