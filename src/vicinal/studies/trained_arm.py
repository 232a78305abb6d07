"""The checkpoints of a finished study: of its winning arm, or of one that is named."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vicinal.errors import UserError, unknown
from vicinal.files import STATE, WEIGHTS
from vicinal.studies.study import finished_results
from vicinal.training.metrics import METRICS
from vicinal.training.trial_result import FAILURE, condition_name


class Chosen(NamedTuple):
    """The checkpoints that were chosen.

    Args:
        paths: paths of the checkpoints; several are averaged.
        reason: a sentence without a full stop on the choice; empty if there was none.
    """

    paths: list[Path]
    reason: str = ""


def chosen_checkpoints(path: Path, *, arm: str | None = None, ensemble: bool = False) -> Chosen:
    """Return a checkpoint itself, that in the folder of a trial, or those of an arm of a study.

    Without ``arm`` it is the arm that is better than the baseline and has the best metric, and the
    baseline if no arm is better, as ``summary.json`` says. The condition is the one with the fewest
    corrupted labels. Without ``ensemble`` it is the first seed: choosing the one with the best test
    result would choose by the test split.

    Args:
        path: the checkpoint, or the folder of a trial or of a study.
        arm: name of an arm.
        ensemble: whether to return the checkpoints of all seeds, on the first split of the data.

    Raises:
        UserError: if there are no checkpoints, no such arm, or no summary to choose by.
    """
    if not (path / "trials").is_dir():
        if arm is not None or ensemble:
            raise UserError(
                f"{path}: --arm and --ensemble expect the folder of a study, got "
                f"{'something else' if path.exists() else 'a path that does not exist'}. Leave "
                "them out, or name a study."
            )
        folder = path if path.is_dir() else path.parent
        there = {one for one in (STATE, FAILURE, "metrics.csv") if (folder / one).exists()}
        reason = ""
        if there and not (folder / "result.json").exists():
            reason = f"a training that {'failed' if FAILURE in there else 'is not finished'}"
        return Chosen([path / WEIGHTS if path.is_dir() else path], reason)
    finished = [one.trial for one in finished_results(path)]
    folds = len({one.split for one in finished})
    trials = [one for one in finished if one.split == 0]
    if not trials:
        raise UserError(f"{path}: expected a study with finished trials, got none. Run it first.")
    corrupted = min(one.corrupted for one in trials)
    condition = condition_name(corrupted)
    name, reason = arm or "", f"the arm {arm}"
    if arm is None:
        name, reason = _winner(path, condition)
    found = [one for one in trials if (one.arm, one.corrupted) == (name, corrupted)]
    if not found:
        raise UserError(f"{path}: {unknown('arm', name, dict.fromkeys(t.arm for t in trials))}")
    found.sort(key=lambda one: one.seed)
    if corrupted:
        reason += f", trained with {condition} labels"
    seeds = ", ".join(str(one.seed) for one in found)
    reason += f": the mean of seeds {seeds}" if ensemble else f": seed {found[0].seed}"
    if not ensemble and len(found) > 1:
        reason += f" of {len(found)}"
    if folds > 1:
        reason += f", trained on the first of {folds} splits of the data"
    chosen = found if ensemble else found[:1]
    return Chosen([path / "trials" / one.folder / WEIGHTS for one in chosen], reason)


def _winner(folder: Path, condition: str) -> tuple[str, str]:
    """Return the arm that won under a condition, and why."""
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_bytes())
        return winner(summary, condition)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}: expected a finished study, got one without a valid {path.name}. Run "
            "vicinal study again to finish it, or choose an arm with --arm."
        ) from error


def winner(summary: Mapping[str, Any], condition: str) -> tuple[str, str]:
    """Return the arm to use after a study, and the reason.

    Args:
        summary: summary of the study.
        condition: name of the condition.

    Returns:
        The arm that is better than the baseline and has the best metric, or the baseline if none
        is better; and the reason as a sentence without a full stop.
    """
    baseline, metric = summary["settings"]["baseline"], summary["metric"]
    rows = [one for one in summary["rows"] if one["condition"] == condition]
    better = [one for one in rows if one["verdict"] == "better"]
    if not better:
        of, seeds, splits = (summary["settings"][name] for name in ("arms", "seeds", "splits"))
        finished = sum(one["n"] + len(one["failed"]) for one in rows)
        all_trials = len(of) * seeds * splits
        if finished < all_trials:
            why = f"the study is not finished ({finished} of {all_trials} trials with {condition})"
            return baseline, f"the baseline {baseline}, since {why}"
        return baseline, f"the baseline {baseline}, since no arm is better"
    sign = 1 if METRICS[metric].higher else -1
    best = max(better, key=lambda one: sign * one["metrics"][metric]["value"])
    title = METRICS[metric].title
    return best["arm"], f"the arm {best['arm']}, which is better than {baseline} in {title}"
