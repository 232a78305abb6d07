"""Redraws the report of a study, or compares the results of several, without training."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vicinal.errors import UserError
from vicinal.reports.study_report import PAGE, write_report
from vicinal.studies import open_study
from vicinal.studies.between_studies import differences_between
from vicinal.studies.study import Study, check_finished
from vicinal.studies.summary import summarized
from vicinal.training.recipe import load_resolved
from vicinal.training.settings import Recipe


def redraw(folders: Sequence[Path], out: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Write the report of one study again, or the comparison of several.

    Results are read again, and statistics computed again. Trials that are not finished are left
    out, and the page says so. If the report goes to another folder, that of the study is only read,
    also while the study runs.

    Args:
        folders: folders of studies.
        out: folder to write to; by default that of the study, or ``comparison`` for several.

    Returns:
        The path of the page, and the summary of each study by its name.

    Raises:
        UserError: if a folder is not that of a study, or has no results.
    """
    resolved = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, resolved, strict=True):
        if resolved.count(path) > 1:
            raise UserError(
                f"FOLDER: expected different studies, got {folder} twice. Name each once."
            )
    in_place = len(folders) == 1 and (out is None or out.resolve() == resolved[0])
    if len(folders) == 1 and out is not None and not in_place and (out / "recipe.toml").exists():
        raise UserError(
            f"--out: {out} is the folder of another study, whose report would be replaced. Choose "
            "another folder; or to compare the two, name both without --out."
        )
    summaries: list[Mapping[str, Any]] = []
    studies = []
    for folder in folders:
        path = folder / "recipe.toml"
        if not path.exists():
            raise UserError(
                f"{folder}: expected the folder of a study, got one without recipe.toml. Studies "
                "are in runs/NAME unless --out was given."
            )
        recipe = load_resolved(path)
        text = path.read_text("utf-8")
        opened = open_study(recipe, folder, text=text) if in_place else _read(recipe, folder, text)
        with opened as study:
            studies.append(study)
            summaries.append(summarized(study))
            if len(folders) == 1:
                write_report(study, summaries[0], None if in_place else out)
    if len(folders) == 1:
        return (out or folders[0]) / PAGE, {recipe.name: dict(summaries[0])}
    from vicinal.reports.comparison import unique_names, write_comparison

    names = unique_names(folders, [one["study"] for one in summaries])
    named = dict(zip(names, map(dict, summaries), strict=True))
    common = [one for one in summaries[0]["metrics"] if all(one in k["metrics"] for k in summaries)]
    between = {
        name: differences_between(studies[0], other, metric)
        for name, other in zip(names[1:], studies[1:], strict=True)
        for metric in common[:1]
    }
    return write_comparison(named, out or Path("comparison"), between=between), named


@contextmanager
def _read(recipe: Recipe, folder: Path, text: str) -> Iterator[Study]:
    """Open a study without a lock, which would have to be written into its folder."""
    study = Study(recipe, folder, text)
    check_finished(study)
    yield study
