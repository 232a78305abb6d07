"""The page of a study and its figures, made from its summary and the files of its trials."""

from collections.abc import Mapping
from typing import Any

from vicinal.escaping import visible, with_text
from vicinal.reports import study_cells, study_text
from vicinal.reports.checklist import checklist
from vicinal.reports.disagreements import disagreements
from vicinal.reports.image_figures import blends_figure
from vicinal.reports.output_figures import (
    OutputsOf,
    confusion_figures,
    confusion_table,
    regression_figures,
    reliability_figure,
)
from vicinal.reports.own_loop import own_loop
from vicinal.reports.page import render
from vicinal.reports.probe_sections import probe_sections
from vicinal.reports.study_figures import (
    MOST_LINES,
    classes_figure,
    curve_figure,
    drawn_arms,
    metric_figure,
)
from vicinal.reports.summary_values import compared_arms, conditions, names_conditions, title
from vicinal.reports.svg import SvgFigure
from vicinal.studies import Study, condition_name
from vicinal.training.arms import MixingArm
from vicinal.training.recipe import resolved_text
from vicinal.training.trial_result import read_metrics

_DIFFERING = {
    "classification": "Percentages are the probability of the true class",
    "multi-label": "Labels with a probability above 50% are listed; examples are chosen by the "
    "mean probability of what is true of the labels",
    "regression": "Predictions are shown; examples are chosen by the absolute error",
}


def figures_and_page(study: Study, summary: Mapping[str, Any]) -> tuple[list[SvgFigure], str]:
    """Return the figures of a study, and its page, which contains them.

    Args:
        study: with its results.
        summary: summary of its results, without characters that a browser would obey.
    """
    recipe, results = study.recipe, study.results()
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

    def outputs_of(rate: float, arms: list[str], splits: int = recipe.splits) -> OutputsOf:
        """Return the outputs of the first splits."""
        read = {
            arm: [
                study.outputs(trial, results)
                for trial in results
                if trial[:2] == (arm, rate) and trial.split < splits
            ]
            for arm in arms
        }
        return {arm: seeds for arm, seeds in read.items() if seeds}

    condition, task = study_text.first_condition(summary), summary["task"]
    rate = next(one for one in rates if condition_name(one) == condition)
    compared = outputs_of(rate, compared_arms(summary, condition))
    metric, by_class = metric_figure(summary), classes_figure(summary, condition)
    memorization = [curve_figure(summary, histories, one, "memorized") for one in rates if one]
    fields = ("train_loss", "test_loss", "test_metric")
    curves = {
        condition_name(one): [curve_figure(summary, histories, one, field) for field in fields]
        for one in rates
    }
    is_one, is_real = task == "classification", task == "regression"
    confusions = confusion_figures(summary, compared) if is_one else []
    errors = regression_figures(summary, compared) if is_real else []
    calibration = []
    for one in () if is_real else rates:
        name = condition_name(one)
        if drawn := outputs_of(one, drawn_arms(summary, name)):
            calibration.append(reliability_figure(summary, drawn, name))
    stored = study.folder / "examples.npz"
    blends = blends_figure(stored) if stored.exists() else None
    first = outputs_of(rate, compared_arms(summary, condition), splits=1)
    differing = disagreements(stored, summary, first, condition)
    machines = [with_text(result.hardware, visible) for result in results.values()]
    machines = [one for k, one in enumerate(machines) if one not in machines[:k]]
    several = len(conditions(summary)) > 1
    few = len(recipe.arms) > MOST_LINES
    probes = probe_sections(summary)
    loop_note, loop_code = _own_loop(study, summary, condition)
    in_first = ", in the first split" * (recipe.splits > 1)
    page = render(
        "report.html.j2",
        summary=summary,
        text=study_text,
        cells=study_cells,
        condition=condition,
        named=f", {condition}" if several else "",
        fewer=f" The baseline and the best {MOST_LINES - 1} other arms are drawn." if few else "",
        metric=metric,
        class_figure=by_class,
        confusions=confusions,
        confused=confusion_table(summary, compared) if is_one and compared else ([], []),
        calibration=calibration,
        probes=probes,
        errors=errors,
        differing=differing,
        differing_note=f"{_DIFFERING[task]}, the mean over seeds, for "
        f"{' and for '.join(title(summary, arm) for arm in compared)}. The examples are those with "
        f"the largest differences in both directions{in_first}.",
        memorization=memorization,
        curves=curves,
        blends=blends,
        machines=machines,
        recipe=visible(_recipe_of(study), keep_lines=True),
        loop_note=loop_note,
        loop_code=loop_code,
        checklist=checklist(summary, machines),
    )
    shown = [metric, by_class, *confusions, *calibration, *errors, *memorization]
    shown += [figure for some in curves.values() for figure in some]
    shown += [figure for section in probes for figure in section.figures]
    shown += [differing.figure if differing else None, blends]
    return [figure for figure in shown if figure is not None], page


def _recipe_of(study: Study) -> str:
    """Return the recipe in the folder, whose comments say what a budget has cut."""
    path = study.folder / "recipe.toml"
    return path.read_text("utf-8") if path.exists() else resolved_text(study.recipe)


def _own_loop(study: Study, summary: Mapping[str, Any], condition: str) -> tuple[str, str]:
    """Return a sentence on the arm that is better than the baseline, and its code."""
    baseline = title(summary, summary["settings"]["baseline"])
    row = study_text.largest(summary, condition, "better")
    if row is None:
        return f"No arm is better than {baseline} in this study, so there is nothing to copy.", ""
    labels = condition if condition.endswith("labels") else f"{condition} labels"
    labels = f" with {labels}" if names_conditions(summary) else ""
    arm = title(summary, row["arm"])
    if not isinstance(study.recipe.arms[row["arm"]], MixingArm):
        return f"{arm} is better than {baseline}{labels}, and does not mix.", ""
    lines = own_loop(study.recipe, row["arm"], summary["task"])
    sentence = f"{arm} is better than {baseline}{labels}. Its settings, for each batch x, y:"
    return sentence[:1].upper() + sentence[1:], visible(lines, keep_lines=True)
