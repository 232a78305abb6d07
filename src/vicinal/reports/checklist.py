"""The reviewer's checklist: what a reviewer asks of a comparison, answered from a study."""

from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.reports.study_cells import Cells
from vicinal.reports.summary_values import comparisons, conditions, epochs_of


def checklist(summary: Mapping[str, Any], machines: Sequence[Mapping[str, str]]) -> Cells:
    """Return questions and answers.

    Args:
        summary: summary of the study.
        machines: the hardware that the trials ran on.
    """
    settings, data, metrics = (summary[key] for key in ("settings", "data", "metrics"))
    rows, arms = summary["rows"], settings["arms"]
    seeds, splits = settings["seeds"], settings["splits"]
    finished, failed = sum(row["n"] for row in rows), sum(len(row["failed"]) for row in rows)
    total = len(rows) * seeds * splits
    several = f" × {len(conditions(summary))} conditions" * (len(conditions(summary)) > 1)
    shares = f" × {splits} splits of the data" * (splits > 1)
    count, compared = comparisons(summary), any(row["p"] is not None for row in rows)
    primary = metrics[summary["metric"]]["title"]
    others = [one["title"] for name, one in metrics.items() if name != summary["metric"]]
    hours = sum(row["all_seconds"] for row in rows) / 3600
    validation = data.get("validation")
    return [
        [
            "Number of runs",
            f"{total}: {len(arms)} arm{'s' * (len(arms) > 1)}{several} × {seeds} "
            f"seed{'s' * (seeds > 1)}{shares}. {finished} finished, "
            f"{failed} failed; "
            + (
                f"{left} more that finished, of other seeds, are left out."
                if (left := summary.get("left_out"))
                else "all that finished are counted."
            ),
        ],
        ["Search space", _search(settings, summary)],
        [
            "Selection rule",
            "The results are those of the last epoch: nothing was chosen by the test split."
            + (
                " The best epoch on the validation split is reported next to them."
                if validation
                else ""
            ),
        ],
        [
            "Validation next to test",
            f"A validation split of {validation['examples']:,} examples was held out of the "
            "training examples; metrics.csv of each trial has its metrics for every epoch."
            if validation
            else "There is no validation split, and the study selects nothing. If arms or settings "
            "are chosen by this page, the test split has been used for that: confirm the choice on "
            "other data, or set data.validation_fraction.",
        ],
        [
            "Metrics",
            f"{primary[:1].upper()}{primary[1:]} is the primary metric. "
            + f"Also reported: {', '.join(others)}. " * bool(others)
            + "Each is shown next to that of a constant prediction."
            + " A constant prediction can have a small ECE, although it tells nothing."
            * ("ece" in summary["metrics"]),
        ],
        ["Intervals", _intervals(seeds, splits, data["test"]["examples"])],
        [
            "Correction for multiple comparisons",
            f"Holm, over {count} comparison{'s' * (count != 1)} with the baseline "
            "in the primary metric. Intervals, other metrics and single classes are not "
            "adjusted."
            if compared
            else "None was needed: no arm was compared.",
        ],
        [
            "Comparison",
            "The arms of a seed share initial weights, order of the examples"
            f"{', corrupted labels' * any(settings['corrupted_labels'])} and test examples, so "
            "differences are paired.",
        ],
        [
            "Compute",
            f"{_duration(hours)} of training and evaluation in all, on "
            + ("; ".join(_machine(one) for one in machines) or "unknown hardware")
            + ".",
        ],
        ["Versions", ", ".join(f"{name} {one}" for name, one in summary["versions"].items())],
        ["Data", _data(settings, data)],
    ]


def _search(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    arms = settings["arms"]
    epochs = sorted({epochs_of(summary, arm) for arm in arms})
    changed = [arm for arm in arms.values() if arm["training"]]
    shown = " to ".join(f"{one:,}" for one in (epochs[0], epochs[-1])[: len(epochs)])
    return (
        f"None within this study: every arm was trained once per seed with the settings of the "
        f"recipe above, for {shown} epochs. "
        + (
            f"{len(changed)} of {len(arms)} arms have training settings of their own."
            if changed
            else "All arms have the same training settings."
        )
        + " Whether settings were tuned before is for the authors to say."
    )


def _intervals(seeds: int, splits: int, examples: int) -> str:
    if seeds * splits == 1:
        return "None: there is one seed."
    if splits > 1:
        return (
            f"95%, over {splits} splits of the data, which share training examples: the variance "
            "is corrected for that (Nadeau and Bengio, 2003)."
        )
    return (
        f"95%. They cover other seeds ({seeds} here) and other test examples ({examples:,} here), "
        "as crossed random effects. They do not cover other training examples, hyperparameters, "
        "networks or data sets."
    )


def _duration(hours: float) -> str:
    if hours >= 2:
        return f"{hours:,.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 30 else f"{3600 * hours:.0f} seconds"


def _machine(machine: Mapping[str, str]) -> str:
    first, *others = machine.items()
    return ", ".join([first[1], *(f"{value} {name}" for name, value in others)])


def _data(settings: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    splits = ("train", "validation", "test")
    hashes = "; ".join(
        f"{name} {data[name]['examples']:,} examples, SHA-256 {data[name]['sha256']}"
        for name in splits
        if data.get(name)
    )
    skipped = sum(data[name]["skipped"] for name in splits if data.get(name))
    first = f"first of {settings['splits']} splits: " * (settings["splits"] > 1)
    return (
        f"{settings['data']['source']}: {first}{hashes}. "
        f"{f'{skipped:,} examples could not be read and were skipped.' if skipped else ''}"
    ).strip()
