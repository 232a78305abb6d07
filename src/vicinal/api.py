"""The Python entry points: ``vicinal.study``, and ``vicinal.load`` for what it trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vicinal.extras import extras_named

if TYPE_CHECKING:
    from vicinal.training.settings import Recipe
    from vicinal.training.trained_network import TrainedNetwork


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


def load(
    path: str | Path,
    *,
    arm: str | None = None,
    allow_import: bool = False,
    accelerator: str = "auto",
) -> "TrainedNetwork":
    """Load a trained network, which predicts from images, recordings or rows of a table.

    Loading runs no code from the checkpoint. The network prepares examples as in its training:
    ``load("checkpoint.safetensors")(["cat.jpg", "dog.png"])`` returns probabilities.

    Args:
        path: a checkpoint; or the folder of a trial or of a study. Of a study, it is the first seed
            of the arm that won, or of the baseline if no arm is better.
        arm: name of an arm of the study.
        allow_import: import the module that the checkpoint names as its network, which runs code.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Raises:
        UserError: if there is no such checkpoint, or it needs an import that is not allowed.
        MissingExtraError: if ``pip install 'vicinal[study]'`` is missing.

    Example:
        >>> import tempfile, torch
        >>> from vicinal.studies import Trial
        >>> from vicinal.training.recipe import read_recipe
        >>> from vicinal.training.single_trial import train_one
        >>> folder = Path(tempfile.mkdtemp(), "run")
        >>> _ = train_one(read_recipe("digits", epochs=1), Trial("mixup", 0.0, 0), folder)
        >>> network = load(folder)
        >>> network.task, network.classes[:3], network(torch.zeros(2, 1, 8, 8)).shape
        ('classification', ('0', '1', '2'), torch.Size([2, 10]))
    """
    with extras_named():
        from vicinal.studies.trained_arm import chosen_checkpoints
        from vicinal.training.trained_network import load_network

        chosen = chosen_checkpoints(Path(path), arm=arm)
        return load_network(chosen.paths[0], allow_import=allow_import, accelerator=accelerator)
