"""The Python entry point of the main job, ``vicinal.study``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vicinal.extras import extras_named

if TYPE_CHECKING:
    from vicinal.training.settings import Recipe


class StudyResult(NamedTuple):
    """The results of a study.

    Args:
        summary: as in ``summary.json``; see ``vicinal.studies.summary.summarize``.
        folder: of the study, with the report and the trials.
        failures: why trials failed, by the names of their folders.
    """

    summary: dict[str, Any]
    folder: Path
    failures: dict[str, str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each arm under each condition: accuracy, interval, difference, verdict."""
        return list(self.summary["rows"])


def study(
    recipe: "str | Path | Recipe" = "digits",
    *,
    seeds: int | None = None,
    epochs: int | None = None,
    data: str | None = None,
    variant: str | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> StudyResult:
    """Train every arm of a recipe with every seed, compare them, and write a report.

    Does what the command ``vicinal study`` does: finished trials in the folder are kept, and an
    interrupted study resumes.

    Args:
        recipe: a recipe that comes with vicinal, such as ``"digits"``, the path of a ``.toml``
            file, or a ``vicinal.training.settings.Recipe``.
        seeds: number of seeds for each arm, instead of the recipe's.
        epochs: number of epochs, instead of the recipe's.
        data: data set, such as ``"folder:PATH"``, instead of the recipe's.
        variant: one of the recipe's variants; only for names and paths.
        out: folder of the study; by default ``runs/NAME``.
        quiet: do not show the progress on stderr.

    Raises:
        UserError: if the recipe is invalid, the folder holds something else, or every trial fails.
        MissingExtraError: if ``pip install 'vicinal[study]'`` is missing.

    Example:
        >>> import tempfile
        >>> done = study("digits", seeds=1, epochs=1, out=tempfile.mkdtemp(), quiet=True)
        >>> [row["arm"] for row in done.rows][:3]
        ['erm', 'mixup', 'mixup-features']
    """
    with extras_named():
        from vicinal.reports.progress import StudyProgress
        from vicinal.reports.study_report import is_current, write_report
        from vicinal.reports.terminal import Terminal
        from vicinal.studies import open_study, run_study
        from vicinal.studies.summary import summarize
        from vicinal.training.recipe import changed_recipe, read_recipe

        if isinstance(recipe, str | Path):
            resolved = read_recipe(
                str(recipe), variant=variant, seeds=seeds, epochs=epochs, source=data
            )
        elif variant is not None:
            raise ValueError(f"study: expected no variant with a Recipe, got {variant!r}")
        else:
            resolved = changed_recipe(recipe, seeds=seeds, epochs=epochs, source=data)
        folder = Path("runs") / resolved.name if out is None else Path(out)
        with open_study(resolved, folder) as opened:
            progress = StudyProgress(Terminal(stderr=True, quiet=quiet))
            with progress.bars:
                run_study(opened, progress)
            failures, results = opened.failures(), opened.results()
            summary = summarize(
                resolved, results, lambda trial: opened.outputs(trial, results), failures
            )
            if not is_current(opened, summary):
                write_report(opened, summary)
    return StudyResult(
        summary, folder, {trial.folder: reason for trial, reason in failures.items()}
    )
