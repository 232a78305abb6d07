"""The summary of a study: one row for each arm under each condition."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal.errors import UserError
from vicinal.studies.advice import advice
from vicinal.studies.estimates import (
    Cell,
    Values,
    estimated,
    floor_of_difference,
    pairs_of,
    scaled,
)
from vicinal.studies.probe_measures import Probed, measures_of
from vicinal.studies.probing import (
    checks_not_run,
    ensemble_rows,
    failed_checks,
    probe_rows,
    read_probed,
)
from vicinal.studies.statistics import Estimate, holm, to_halve, verdict
from vicinal.studies.study import Study, finished_results
from vicinal.training.environment import merged_versions
from vicinal.training.metrics import (
    METRICS,
    constant_value,
    least_difference,
    metric_of,
    metric_values,
    plain,
    primary_metric,
    reported_metrics,
)
from vicinal.training.recipe_warnings import VerdictProblem, verdict_problems
from vicinal.training.settings import Recipe
from vicinal.training.trial_result import Outputs, Result, Trial, condition_name

EQUIVALENCE = 0.5
"""Default of ``equivalence`` for metrics in percent, in points."""


def summarized(study: Study) -> dict[str, Any]:
    """Return the summary of the trials in the folder of a study; see ``summarize``.

    ``left_out`` is the number of finished trials that the recipe no longer has, and ``unprobed``
    that of trials whose probes are not measured yet, if there are any.
    """
    results = study.results()
    probed = read_probed(study.probing(results), results)
    found = summarize(
        study.recipe,
        results,
        lambda trial: study.outputs(trial, results),
        study.failures(),
        third_class=study.third_class,
        probed=probed,
    )
    left_out = [one for one in finished_results(study.folder) if one.trial not in study.trials]
    if left_out:
        found["left_out"] = len(left_out)
    missing = len(results) - len(probed)
    if missing and measures_of(study.recipe.probes):
        found["unprobed"] = missing
    return found


def summarize(
    recipe: Recipe,
    results: Mapping[Trial, Result],
    outputs: Callable[[Trial], Outputs],
    failures: Mapping[Trial, str] | None = None,
    *,
    third_class: float | None = None,
    probed: Mapping[Trial, Probed] | None = None,
) -> dict[str, Any]:
    """Return the summary of a study as plain values for JSON.

    Recalls, ``memorized`` and all metrics that are fractions are in percent, and their differences
    in percentage points. A repeated run on the same machine changes only ``seconds``, the median
    duration of a trial, and ``peak_memory``.

    A row covers the ``n`` trials that finished; its differences cover the seeds that also finished
    in the baseline, and ``failed`` lists the others. ``metrics`` has an interval for each metric,
    and one for the difference from the baseline. ``p`` is the p-value of the difference in the
    primary metric, adjusted for all rows of the study (Holm). ``withheld`` is the reason for
    the verdict ``"withheld"``. ``detectable`` is the smallest difference that such a study would
    find with a probability of 80%, and ``to_halve`` the numbers of seeds and of test examples that
    would halve it. ``best`` is the metric on the test split after the epoch that was the best on
    the validation split, or None without such a split. ``recall`` has the accuracy on each class,
    with the same intervals as ``metrics``; in multi-label tasks, ``labels`` has the average
    precision and the AUROC of each label. ``label_metrics`` describes both.

    ``probes`` has the measures of the recipe's probes, with a row for each arm under each
    condition, ``failed_checks`` the checks of attacks that failed, and ``checks_not_run`` what
    those that did not run need.
    ``constant`` has the metrics of the predictor that ignores its inputs, and ``advice`` says
    whether mixing suits the data and the network; see ``vicinal.studies.advice``.

    ``published`` is present if the recipe has published rows: each with the accuracy that this
    study measured with true labels and the same number of epochs, its interval and its number of
    trials, or None if it measured none. Arms without a published row for their number of epochs
    come first, with None as the published accuracy.

    Args:
        recipe: recipe of the study.
        results: results of the finished trials.
        outputs: returns the outputs of a finished trial.
        failures: why others failed.
        third_class: as ``vicinal.studies.third_class.third_class_share`` returns it.
        probed: what the probes of the recipe measured.

    Raises:
        UserError: if no trial finished, or trials were tested on different examples.
    """
    failures = failures or {}
    if not results:
        raise UserError(_nothing_to_report([*failures.values()]))
    facts = next(iter(results.values())).origin["data"]
    task, train = facts["task"], facts["train"]
    primary = primary_metric(recipe.metrics, task)
    names = reported_metrics(recipe.metrics, task)
    ratio = facts["test"]["examples"] / train["examples"]
    read = {trial: outputs(trial) for trial in results}
    values = {name: _values(recipe, read, name, task) for name in names}
    targets = _targets(recipe, read)
    by_class = _by_class(recipe, read, targets, facts) if task == "classification" else []
    by_label = _by_label(recipe, read, targets, facts) if task == "multi-label" else {}
    leasts = {name: [least_difference(name, one, task) for one in targets] for name in names}
    leasts_by_class = [
        [3 / max(int((one == k).sum()), 1) for one in targets] for k in range(len(by_class))
    ]

    def _leasts(name: str, label: int) -> list[float]:
        columns = [one[:, label : label + 1] if len(one) else one for one in targets]
        return [least_difference(name, one, task) for one in columns]

    comparisons = max((len(recipe.arms) - 1) * len(recipe.corrupted_labels), 1)
    rows = []
    for corrupted in recipe.corrupted_labels:
        for arm in recipe.arms:
            cell, base = (arm, corrupted), (recipe.baseline, corrupted)
            row = _row(cell, results, failures)
            row["metrics"] = {
                name: estimated(
                    values[name],
                    cell,
                    base,
                    metric_of(name, task),
                    ratio=ratio,
                    leasts=leasts[name],
                    comparisons=comparisons if name == primary else 1,
                )
                for name in names
            }
            pairs = pairs_of(values[primary], cell, base) if recipe.splits == 1 else []
            least = floor_of_difference(METRICS[primary], leasts[primary][: len(pairs)], pairs)
            row["to_halve"] = _to_halve(pairs, least, comparisons)
            row["best"] = _best(cell, read, primary, task)
            row["recall"] = [
                estimated(one, cell, base, METRICS["accuracy"], ratio=ratio, leasts=three)
                if one
                else None
                for one, three in zip(by_class, leasts_by_class, strict=True)
            ]
            if by_label:
                row["labels"] = {
                    name: [
                        estimated(
                            one, cell, base, METRICS[name], ratio=ratio, leasts=_leasts(name, k)
                        )
                        for k, one in enumerate(each)
                    ]
                    for name, each in by_label.items()
                }
            rows.append(row)
    constant = {name: _constant(name, results, targets, task) for name in names}
    tested = _tested(targets, task, facts["classes"])
    found = verdict_problems(recipe, _with_all_splits(facts, tested))
    _judge(rows, primary, _margin(recipe, primary), comparisons)
    baselines = {row["condition"]: row for row in rows if row["arm"] == recipe.baseline}
    for row in rows:
        both = (row, baselines[row["condition"]])
        reasons = _reasons_to_withhold(recipe, both, found, constant[primary], primary)
        if row["arm"] != recipe.baseline and reasons:
            row |= {"verdict": "withheld", "withheld": "; ".join(reasons)}
    summary: dict[str, Any] = {
        "study": recipe.name,
        "task": task,
        "metric": primary,
        "metrics": {name: _about(name) for name in names},
        "equivalence": _margin(recipe, primary),
        "rows": rows,
    }
    if recipe.published and "accuracy" in names:
        with_true_labels = [row for row in rows if row["condition"] == condition_name(0)]
        summary["published"] = _published(recipe, with_true_labels)
    # Of each class or label; the study may report other metrics only.
    each = by_label if task == "multi-label" else ["accuracy"] * (task == "classification")
    if each:
        summary["label_metrics"] = {name: _about(name) for name in each}
    if task == "classification":
        most = int(np.argmax(facts["predictor"]["mean"]))
        summary["constant_class"] = facts["classes"][most]
    return summary | {
        "data": {k: v for k, v in facts.items() if k not in ("preparation", "predictor")},
        "tested_of_each_class": tested,
        "constant": constant,
        "probes": probe_rows(recipe, probed or {}, ratio=ratio) + ensemble_rows(recipe, read),
        "failed_checks": failed_checks(probed or {}),
        "checks_not_run": checks_not_run(probed or {}),
        "advice": [one._asdict() for one in advice(recipe, results, third_class)],
        "verdict_problems": [problem.text for problem in found],
        "settings": json.loads(recipe.model_dump_json()),  # with "Infinity" for inf
        "versions": merged_versions([result.versions for result in results.values()]),
    }


def _nothing_to_report(failures: Sequence[str]) -> str:
    if failures:
        return f"every trial failed, so there is nothing to report. The first: {failures[0]}"
    return "no trial is finished, so there is nothing to report. Run vicinal study first."


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as JSON text."""
    return json.dumps(summary, indent=2, allow_nan=False) + "\n"


def _margin(recipe: Recipe, primary: str) -> float | None:
    if recipe.equivalence is not None:
        return recipe.equivalence
    return EQUIVALENCE if METRICS[primary].percent else None


def _targets(recipe: Recipe, read: Mapping[Trial, Outputs]) -> list[NDArray[Any]]:
    """Return the targets of the test examples, for each of the recipe's ``splits``.

    Raises:
        UserError: if those of two trials differ, since then examples cannot be paired.
    """
    targets = []
    for split in range(recipe.splits):
        own = [(trial, one.targets) for trial, one in read.items() if trial.split == split]
        for trial, one in own:
            if not np.array_equal(one, own[0][1]):
                raise UserError(
                    f"{trial.folder} was tested on other examples than {own[0][0].folder}, so they "
                    "cannot be compared. Delete the folder of one of them in trials/."
                )
        targets.append(own[0][1] if own else np.array([]))
    return targets


def _tested(targets: Sequence[NDArray[Any]], task: str, classes: Sequence[str]) -> list[int] | None:
    """Return the number of test examples of each class or label over all splits."""
    if task == "regression":
        return None
    counts = [
        one.sum(0) if one.ndim > 1 else np.bincount(one.astype(int), minlength=len(classes))
        for one in targets
        if len(one)
    ]
    return [int(count) for count in np.sum(counts, axis=0)]


def _with_all_splits(facts: Mapping[str, Any], tested: Sequence[int] | None) -> dict[str, Any]:
    """Return facts about the data of one split, with the test examples of all splits."""
    if tested is None:
        return dict(facts)
    return {**facts, "test": facts["test"] | {"of_each_class": tested}}


def _values(recipe: Recipe, read: Mapping[Trial, Outputs], name: str, task: str) -> Values:
    values: Values = [{} for _ in range(recipe.splits)]
    for (arm, corrupted, seed, split), one in read.items():
        seeds = values[split].setdefault((arm, corrupted), {})
        seeds[seed] = metric_values(name, one.last, one.targets, task)
    return values


def _row(
    cell: Cell, results: Mapping[Trial, Result], failures: Mapping[Trial, str]
) -> dict[str, Any]:
    own = [one for trial, one in results.items() if trial[:2] == cell]
    failed = {trial: reason for trial, reason in failures.items() if trial[:2] == cell}
    memorized = [100 * one.memorized for one in own if one.memorized is not None]
    return {
        "arm": cell[0],
        "condition": condition_name(cell[1]),
        "n": len(own),
        "verdict": None,
        "withheld": None,
        "p": None,
        "memorized": round(float(np.mean(memorized)), 4) if memorized else None,
        "seconds": float(np.median([one.seconds for one in own])) if own else None,
        "all_seconds": float(np.sum([one.seconds for one in own])),
        "peak_memory": max((one.peak_memory for one in own), default=None),
        "failed": [
            {"seed": trial.seed, "split": trial.split, "reason": reason}
            for trial, reason in failed.items()
        ],
    }


def _to_halve(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], least: float, comparisons: int
) -> dict[str, int | None] | None:
    if not pairs or min(pairs[0][0].shape) < 2:
        return None
    difference = pairs[0][0] - pairs[0][1]
    if not np.isfinite(difference).all():
        return None
    seeds, examples = to_halve(difference, least=least, comparisons=comparisons)
    return {"seeds": seeds, "examples": examples}


def _best(cell: Cell, read: Mapping[Trial, Outputs], name: str, task: str) -> float | None:
    best = [
        metric_values(name, one.best, one.targets, task).mean()
        for trial, one in read.items()
        if trial[:2] == cell and one.best is not None
    ]
    return scaled(METRICS[name], float(np.mean(best))) if best else None


def _by_class(
    recipe: Recipe,
    read: Mapping[Trial, Outputs],
    targets: Sequence[NDArray[Any]],
    facts: Mapping[str, Any],
) -> list[Values | None]:
    """Return whether each example of a class is right, in the splits that test it, or None."""
    values = _values(recipe, read, "accuracy", "classification")
    found: list[Values | None] = []
    for k in range(len(facts["classes"])):
        rows = [true == k for true in targets]
        found.append(
            [
                {cell: {s: v[chosen] for s, v in seeds.items()} for cell, seeds in split.items()}
                if chosen.any()
                else {}
                for split, chosen in zip(values, rows, strict=True)
            ]
            if any(chosen.any() for chosen in rows)
            else None
        )
    return found


def _by_label(
    recipe: Recipe,
    read: Mapping[Trial, Outputs],
    targets: Sequence[NDArray[Any]],
    facts: Mapping[str, Any],
) -> dict[str, list[Values]]:
    """Return the values of the metrics that each label has, in the splits that define them."""

    def of(name: str, k: int) -> Values:
        columns = {
            trial: Outputs(one.last[:, k : k + 1], None, one.targets[:, k : k + 1])
            for trial, one in read.items()
            if np.ptp(targets[trial.split][:, k])
        }
        return _values(recipe, columns, name, "multi-label")

    labels = range(facts["outputs"])
    return {name: [of(name, k) for k in labels] for name in ("average-precision", "auroc")}


def _constant(
    name: str, results: Mapping[Trial, Result], targets: Sequence[NDArray[Any]], task: str
) -> float | None:
    """Return the metric of constant predictions, a mean over the splits that have results."""
    first = {trial.split: one for trial, one in reversed(list(results.items()))}
    found = [
        constant_value(name, one.origin["data"]["predictor"], targets[split], task)
        for split, one in first.items()
    ]
    return scaled(METRICS[name], float(np.mean(found)))


def _about(name: str) -> dict[str, Any]:
    return {key: getattr(METRICS[name], key) for key in ("title", "percent", "higher")}


def _judge(
    rows: Sequence[dict[str, Any]], primary: str, margin: float | None, comparisons: int
) -> None:
    """Add the p-values and the verdicts, adjusted also for comparisons that are not finished."""
    found = [(row, row["metrics"][primary]["difference"]) for row in rows]
    judged = [row for row, one in found if one is not None and one["p"] is not None]
    differences = [row["metrics"][primary]["difference"] for row in judged]
    unfinished = [1.0] * (comparisons - len(judged))
    adjusted = holm([one["p"] for one in differences] + unfinished)
    for row, one, p in zip(judged, differences, adjusted, strict=False):
        row["p"] = p
        row["verdict"] = verdict(
            Estimate(one["value"], one["low"], one["high"]),
            p=p,
            margin=margin,
            higher=METRICS[primary].higher,
        )


def _reasons_to_withhold(
    recipe: Recipe,
    rows: tuple[Mapping[str, Any], Mapping[str, Any]],
    found: Sequence[VerdictProblem],
    constant: float | None,
    primary: str,
) -> list[str]:
    """Return why the results do not support a verdict on the first of two rows."""
    arms, metric = [row["arm"] for row in rows], METRICS[primary]
    reasons = [problem.text for problem in found if problem.arm in (None, *arms)]
    trials = recipe.seeds * recipe.splits
    for k, row in enumerate(rows):
        if row["failed"]:
            whose = f" of {recipe.arms[row['arm']].title}" * k
            reasons.append(f"{len(row['failed'])} of {trials} trials{whose} failed")
        if left := trials - row["n"] - len(row["failed"]):
            whose = f" of {recipe.arms[row['arm']].title}" * k
            reasons.append(
                f"{left} of {trials} trials{whose} {'are' if left > 1 else 'is'} not finished"
            )
    if trials == 1:
        reasons.append("one seed gives no interval")
    values = {row["arm"]: row["metrics"][primary]["value"] for row in rows if row["n"]}
    if constant is None or None in values.values():
        reasons.append(f"{metric.title} is undefined for these test examples")
        return reasons
    if rows[0]["p"] is None and not reasons:
        reasons.append("there is no interval, since a split has fewer than two test examples")
    if primary == "ece":  # a constant prediction of the class frequencies is calibrated
        return reasons
    sign = 1 if metric.higher else -1
    below = [
        recipe.arms[arm].title for arm, value in values.items() if sign * value <= sign * constant
    ]
    if below:
        reasons.append(
            f"{' and '.join(below)} {'are' if below[1:] else 'is'} not better than a constant "
            f"prediction, whose {metric.title} is {plain(constant)}{'%' * metric.percent}"
        )
    return reasons


def _published(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the published rows, with what was measured for the same number of epochs.

    In the list, arms without a published row for this number of epochs come first.
    """
    measured = {row["arm"]: row for row in rows}
    epochs = {arm: recipe.training_of(arm).epochs for arm in recipe.arms}
    matched = {row.arm for row in recipe.published if row.epochs == epochs[row.arm]}
    others = {row.arm for row in recipe.published} - matched
    listed: list[tuple[str, int, float | None, str]]
    listed = [(arm, epochs[arm], None, "this study") for arm in measured if arm in others]
    listed += [(row.arm, row.epochs, row.accuracy, row.source) for row in recipe.published]
    found = []
    for arm, count, accuracy, source in listed:
        ours = measured.get(arm, {}) if count == epochs[arm] else {}
        accuracy_of = ours["metrics"]["accuracy"] if ours else {}
        found.append(
            {
                "arm": arm,
                "title": recipe.arms[arm].title,
                "epochs": count,
                "accuracy": accuracy,
                "source": source,
                "measured": accuracy_of.get("value"),
                "low": accuracy_of.get("low"),
                "high": accuracy_of.get("high"),
                "n": ours.get("n"),
            }
        )
    return found
