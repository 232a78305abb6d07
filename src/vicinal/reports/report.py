"""Writing a report: reads the results of a study, and nothing else."""

import hashlib
from collections.abc import Mapping
from typing import Any

from vicinal.escaping import visible, with_text
from vicinal.files import write_whole
from vicinal.studies import Study
from vicinal.studies.summary import summary_text
from vicinal.training.recipe import resolved_text
from vicinal.training.trial_result import Trial, read_metrics

PAGE, SUMS = "report.html", "SHA256SUMS"


def is_current(study: Study, summary: Mapping[str, Any]) -> bool:
    """Say whether the folder holds a report of this summary, and all of its files are undamaged."""
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

    Where the recipe has published rows, ``published.csv`` has them. ``SHA256SUMS`` is written last,
    so that a file that is missing or damaged later is noticed and all are written again.

    Raises:
        UserError: if one of them cannot be written, or a trial's metrics cannot be read.
    """
    # matplotlib takes its time, which showing a finished study can do without.
    from vicinal.reports.figures import (
        accuracy_picture,
        curve_pictures,
        examples_picture,
        memorization_picture,
    )
    from vicinal.reports.page import page
    from vicinal.reports.study_tables import csv_text, markdown
    from vicinal.reports.svg import standalone
    from vicinal.studies import condition_name

    recipe, folder = study.recipe, study.folder
    results = study.results()
    histories = {
        (arm, corrupted): [
            read_metrics(study.trial_folder(trial))
            for seed in range(recipe.seeds)
            if (trial := Trial(arm, corrupted, seed)) in results
        ]
        for arm in recipe.arms
        for corrupted in recipe.corrupted_labels
    }
    rates = recipe.corrupted_labels
    raw, summary = summary, with_text(summary, visible)
    accuracy = accuracy_picture(summary)
    memorization = [memorization_picture(summary, histories, rate) for rate in rates if rate]
    curves = [(condition_name(r), curve_pictures(summary, histories, r)) for r in rates]
    kept = folder / "examples.npz"
    examples = examples_picture(kept) if kept.exists() else None
    pictures = [accuracy, *memorization, *(one for _, several in curves for one in several)]
    files = {
        f"figures/{picture.name}.svg": standalone(picture)
        for picture in ([*pictures, examples] if examples else pictures)
    }
    machines = [with_text(result.hardware, visible) for result in results.values()]
    files[PAGE] = page(
        summary,
        recipe_text=visible(resolved_text(recipe), keep_lines=True),
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
