"""The Python entry points: ``vicinal.study``, and ``vicinal.load`` for what it trained."""

import html
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vicinal.errors import UserError
from vicinal.extras import extras_named

if TYPE_CHECKING:
    from vicinal.studies.claims import Outcome
    from vicinal.training.recipe_changes import Changes
    from vicinal.training.settings import Recipe
    from vicinal.training.trained_network import TrainedNetwork


class StudyResult(NamedTuple):
    """The results of a study; a notebook shows the answer and the table.

    Args:
        summary: as in ``summary.json``; see ``vicinal.studies.summary.summarize``.
        folder: folder of the study, with the report and the trials.
        failures: why trials failed, by the names of their folders.
    """

    summary: dict[str, Any]
    folder: Path
    failures: dict[str, str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each arm under each condition: metrics, intervals, difference, verdict."""
        return list(self.summary["rows"])

    @property
    def winner(self) -> str | None:
        """The best arm that is better than the baseline; None if there is none.

        With several conditions, the one with the fewest corrupted labels counts.
        """
        from vicinal.studies.trained_arm import winner
        from vicinal.training.trial_result import condition_name

        settings = self.summary["settings"]
        arm, _ = winner(self.summary, condition_name(min(settings["corrupted_labels"])))
        return None if arm == settings["baseline"] else arm

    def to_frame(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``, with a column for each number.

        Raises:
            UserError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError("to_frame requires pandas. Run pip install pandas.") from error
        from vicinal.reports.table_files import csv_rows

        return pd.DataFrame(csv_rows(self.summary))

    def report(self) -> Path:
        """Return the path of the report, an HTML page that opens offline."""
        return self.folder / "report.html"

    def __repr__(self) -> str:
        from vicinal.reports.study_text import answer

        return f"{answer(self.summary)}\nreport: {self.report()}"

    def _repr_html_(self) -> str:
        from vicinal.reports.study_cells import study_table
        from vicinal.reports.study_text import answer

        head, rows = study_table(self.summary)
        cells = [
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            for tag, row in (("th", head), *(("td", row) for row in rows))
        ]
        table = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<p>{html.escape(answer(self.summary))}</p><table>{table}</table>"


class GanStudyResult(StudyResult):
    """The results of a study of GANs; ``summary`` is that of ``summarize_gans``."""

    @property
    def winner(self) -> str | None:
        """None: a study of GANs has several measures, and none is the primary one."""
        return None

    def to_frame(self) -> Any:
        """Raise an error, since a row has several measures.

        Raises:
            UserError: always.
        """
        raise UserError("to_frame: a study of GANs has no such table. Use .rows, or table.md.")

    def __repr__(self) -> str:
        from vicinal.reports.gan_report import gan_answer

        return f"{gan_answer(self.summary)}\nreport: {self.report()}"

    def _repr_html_(self) -> str:
        from vicinal.reports.gan_report import gan_answer

        return f"<p>{html.escape(gan_answer(self.summary))}</p>"


def study(
    what: "str | Path | Recipe" = "digits",
    *,
    arms: Sequence[str] = (),
    alpha: float | None = None,
    model: str | None = None,
    metric: str | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    settings: Sequence[str] = (),
    data: str | None = None,
    variant: str | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> StudyResult:
    """Train every arm with every seed, compare the arms, and write a report.

    Does what the command ``vicinal study`` does: finished trials in the folder are kept, and an
    interrupted study resumes.

    Args:
        what: a recipe that comes with vicinal, such as ``"digits"``, the path of a ``.toml`` file,
            or a ``vicinal.training.settings.Recipe``; or a data set, such as ``"folder:flowers"``,
            ``"cars.csv"`` or the path of a folder, for which a recipe is generated.
        arms: names of the arms, such as ``["erm", "mixup", "cutmix", "manifold"]``.
        alpha: the alpha of all arms that have one.
        model: name of the network.
        metric: the primary metric.
        seeds: number of seeds for each arm.
        epochs: number of epochs.
        minutes: about how long a study of a data set may take, to which its seeds and epochs are
            fitted; 10 by default.
        settings: other fields of the recipe, such as ``["training.ema_decay=0.99"]``.
        data: data set to use instead of the recipe's.
        variant: one of the recipe's variants; only for names and paths.
        out: folder of the study; by default ``runs/NAME``.
        quiet: do not show the progress on stderr.

    Raises:
        UserError: if the recipe is invalid, the folder holds something else, or every trial fails.
        MissingExtraError: if a package that ``pip install 'vicinal[study]'`` installs is missing.

    Example:
        >>> import tempfile
        >>> done = study("digits", seeds=1, epochs=1, out=tempfile.mkdtemp(), quiet=True)
        >>> [row["arm"] for row in done.rows][:3]
        ['erm', 'mixup', 'mixup-features']
    """
    with extras_named():
        from vicinal.reports.progress import StudyProgress
        from vicinal.reports.study_report import current_summary, write_report
        from vicinal.reports.terminal import Terminal
        from vicinal.studies import open_study, run_study
        from vicinal.studies.prepare import Prepared, prepare
        from vicinal.training.recipe import (
            changed_recipe,
            is_gan_recipe,
            is_recipe,
            read_recipe,
            read_settings,
            resolved_text,
        )
        from vicinal.training.recipe_changes import Changes

        for name, given in (("arms", arms), ("settings", settings)):
            if isinstance(given, str):
                raise UserError(f"{name}: expected a list, got {given!r}. Pass [{given!r}].")
        changes = Changes(seeds, epochs, data, arms, alpha, model, metric, settings)
        folder = None if out is None else Path(out)
        progress = StudyProgress(Terminal(stderr=True, quiet=quiet))
        named = isinstance(what, str | Path)
        from_data = named and not is_recipe(str(what))
        for option, value, fits, expected in (
            ("variant", variant, named and not from_data, "the name or path of a recipe"),
            ("data", data, not from_data, "a recipe"),
            ("minutes", minutes, from_data, "a data set"),
        ):
            if value is not None and not fits:
                raise UserError(
                    f"--{option}: expected {expected} as WHAT, got {what!s:.100}. Leave out "
                    f"--{option}."
                )
        about_gans = named and not from_data and is_gan_recipe(read_settings(str(what)))
        if about_gans:
            return _gan_study(str(what), variant, changes, folder, progress.log)
        if from_data:
            log = progress.log
            from vicinal.training.devices import pytorch_defaults

            with pytorch_defaults():
                prepared = prepare(str(what), changes=changes, minutes=minutes, out=folder, log=log)
        else:
            if isinstance(what, str | Path):
                recipe = read_recipe(str(what), variant=variant, changes=changes)
            else:
                recipe = changed_recipe(what, changes)
            folder = folder or Path("runs") / recipe.name
            prepared = Prepared(recipe, resolved_text(recipe), folder)
        recipe, text, of_folder = prepared.recipe, prepared.text, prepared.of_folder
        with open_study(recipe, prepared.folder, text=text, of_folder=of_folder) as opened:
            summary = current_summary(opened)
            if summary is not None:
                path = opened.folder / "summary.json"
                written = datetime.fromtimestamp(path.stat().st_mtime)
                progress.log(
                    f"{opened.folder} has a finished study, whose report was written on "
                    f"{written:%Y-%m-%d %H:%M}; its data are not read again"
                )
            else:
                from vicinal.training.devices import pytorch_defaults

                with progress.bars, pytorch_defaults():
                    run_study(opened, progress, data=prepared.data)
                from vicinal.studies.summary import summarized  # takes long to import

                summary = summarized(opened)
                write_report(opened, summary)
            failures = opened.failures()
    return StudyResult(
        summary, prepared.folder, {trial.folder: reason for trial, reason in failures.items()}
    )


def _gan_study(
    what: str, variant: str | None, changes: "Changes", out: Path | None, log: Callable[[str], None]
) -> GanStudyResult:
    """Run or resume a study of GANs; see ``study``."""
    from vicinal.reports.gan_report import write_gan_report
    from vicinal.studies.gan import open_gan_study, run_gan_study
    from vicinal.studies.gan_summary import summarize_gans
    from vicinal.training.devices import pytorch_defaults
    from vicinal.training.gan_recipe import read_gan_recipe

    recipe = read_gan_recipe(what, variant=variant, changes=changes)
    with pytorch_defaults(), open_gan_study(recipe, out or Path("runs") / recipe.name) as opened:
        run_gan_study(opened, log)
        summary = summarize_gans(opened)
        write_gan_report(opened, summary)
    return GanStudyResult(summary, opened.folder, {})


def claims(
    out: str | Path = "runs/claims", *, seeds: int | None = None, quiet: bool = False
) -> "list[Outcome]":
    """Measure the claims of the mixup paper with small stand-ins, and write one page.

    Does what ``vicinal study claims`` does: finished studies are kept, and those whose data are
    missing are left out, with the reason.

    Args:
        out: folder of the page, with a folder for each study.
        seeds: number of seeds for each arm; by default those of the recipes, at least 5.
        quiet: do not show the progress on stderr.

    Returns:
        One outcome for each claim; see ``vicinal.studies.claims.Outcome``.

    Raises:
        UserError: if no study could run.
        MissingExtraError: if a package that ``pip install 'vicinal[study]'`` installs is missing.
    """
    with extras_named():
        from vicinal.reports.claims_page import run_claims
        from vicinal.reports.terminal import Terminal
        from vicinal.studies.claims import Claim

        def run(claim: Claim, folder: Path) -> Mapping[str, Any]:
            return study(
                claim.recipe, variant=claim.variant, seeds=seeds, out=folder, quiet=True
            ).summary

        terminal = Terminal(stderr=True, quiet=quiet)
        return run_claims(Path(out), run, lambda sentence: terminal.print(sentence, soft_wrap=True))


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
        MissingExtraError: if a package that ``pip install 'vicinal[study]'`` installs is missing.

    Warns:
        UserWarning: which network was chosen, if ``path`` is a study and ``arm`` is None; and if
            the training is not finished.

    Example:
        >>> import tempfile, torch
        >>> from vicinal.studies import Trial
        >>> from vicinal.training.recipe import read_recipe
        >>> from vicinal.training.recipe_changes import Changes
        >>> from vicinal.training.single_trial import train_one
        >>> folder = Path(tempfile.mkdtemp(), "run")
        >>> recipe = read_recipe("digits", changes=Changes(epochs=1))
        >>> _ = train_one(recipe, Trial("mixup", 0.0, 0), folder)
        >>> network = load(folder)
        >>> network.task, network.classes[:3], network(torch.zeros(2, 1, 8, 8)).shape
        ('classification', ('0', '1', '2'), torch.Size([2, 10]))
    """
    with extras_named():
        from vicinal.studies.trained_arm import chosen_checkpoints
        from vicinal.training.devices import pytorch_defaults
        from vicinal.training.trained_network import load_network

        chosen = chosen_checkpoints(Path(path), arm=arm)
        if chosen.reason and arm is None:
            warnings.warn(f"vicinal.load: using {chosen.reason}", stacklevel=2)
        with pytorch_defaults():
            return load_network(chosen.paths[0], allow_import=allow_import, accelerator=accelerator)
