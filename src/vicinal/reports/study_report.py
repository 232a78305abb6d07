"""The report of a study: one HTML page, tables and figures, made from its results alone."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vicinal.escaping import visible, with_text
from vicinal.files import write_whole
from vicinal.studies import Study
from vicinal.studies.probing import PROBES
from vicinal.studies.study import THIRD_CLASS, is_undamaged

PAGE, SUMS = "report.html", "SHA256SUMS"

_HEADER = f"# vicinal {version('vicinal')} made this report of a complete study."
"""The first line of ``SUMS``; sha256sum ignores it."""


def current_summary(study: Study) -> dict[str, Any] | None:
    """Return the summary in the folder if the whole report is current, else None.

    It is if all files of the report, and all files that it was made from, are those that
    ``SHA256SUMS`` lists, which only a complete study has. Nothing is computed.
    """
    try:
        header, *lines = (study.folder / SUMS).read_text("utf-8").splitlines()
        written = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        sources = _sources(study)
        known = {name for name in written if name.startswith("trials/")}
        if (
            header != _HEADER
            or not study.recipe_is_written
            or known != {name for name in sources if name.startswith("trials/")}
            or not set(sources) <= set(written)
            or any(_digest(study.folder / name) != digest for name, digest in written.items())
        ):
            return None
        summary: dict[str, Any] = json.loads((study.folder / "summary.json").read_bytes())
        return summary
    except (OSError, ValueError):
        return None


def _sources(study: Study) -> list[str]:
    """Return the files that the report is made from; results have the hashes of the outputs."""
    names = ["recipe.toml", "examples.npz", THIRD_CLASS]
    for trial in study.trials:
        folder = f"trials/{trial.folder}"
        done = (study.folder / folder / "result.json").exists()
        parts = ("result.json", "metrics.csv", PROBES) if done else ("failed.json",)
        names += [f"{folder}/{part}" for part in parts]
    return [name for name in names if (study.folder / name).exists()]


def _is_complete(study: Study, summary: Mapping[str, Any]) -> bool:
    """Return whether ``vicinal study`` has nothing left to do."""
    ended = sum(row["n"] + len(row["failed"]) for row in summary["rows"])
    return (
        ended == len(study.trials)
        and not summary.get("unprobed")
        and is_undamaged(study.folder / "examples.npz")
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_report(study: Study, summary: Mapping[str, Any], out: Path | None = None) -> None:
    """Write the page, figures, tables and ``summary.json``.

    If the recipe has published rows, ``published.csv`` has them too. ``SHA256SUMS`` is written
    last, so that ``current_summary`` notices a file that is missing or damaged; the folder of a
    study that is not complete has none.

    Args:
        study: with its results.
        summary: summary of its results.
        out: folder to write to; by default that of the study.

    Raises:
        UserError: if a file cannot be written, or the metrics of a trial cannot be read.
    """
    # Showing a finished study does not need matplotlib, which takes long to import.
    from vicinal.reports.study_page import figures_and_page
    from vicinal.reports.svg import standalone_svg
    from vicinal.reports.table_files import csv_rows, csv_text, latex, markdown
    from vicinal.studies.summary import summary_text

    shown = with_text(summary, visible)
    figures, page = figures_and_page(study, shown)
    files = {f"figures/{figure.name}.svg": standalone_svg(figure) for figure in figures}
    files[PAGE] = page
    files["table.md"] = markdown(shown)
    files["table.tex"] = latex(shown)
    files["table.csv"] = csv_text(csv_rows(summary))
    if "published" in summary:
        files["published.csv"] = csv_text(summary["published"])
    files["summary.json"] = summary_text(summary)
    sources = {name: _digest(study.folder / name) for name in _sources(study)} if not out else {}
    folder = out or study.folder
    for name, text in files.items():
        write_whole(folder / name, text)
        sources[name] = hashlib.sha256(text.encode()).hexdigest()
    lines = [f"{digest}  {name}" for name, digest in sources.items()]
    if out or _is_complete(study, summary):
        write_whole(folder / SUMS, "\n".join([_HEADER, *lines]) + "\n")
    else:  # the next run of the study has to go on
        (folder / SUMS).unlink(missing_ok=True)
