"""Several studies on one page: the arms and metrics that they share, side by side."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vicinal.errors import UserError
from vicinal.escaping import visible, with_text
from vicinal.files import write_whole
from vicinal.reports.page import render
from vicinal.reports.study_cells import Table
from vicinal.reports.study_text import reservations
from vicinal.reports.summary_values import interval, metric_title, names_conditions, title
from vicinal.reports.table_files import csv_rows, csv_text, escaped, markdown_table
from vicinal.training.run_folder import flat

Summaries = Mapping[str, Mapping[str, Any]]
"""Summaries of studies by the name that is shown."""

Between = Mapping[str, Mapping[tuple[str, str], Any]]
"""Differences of each study from the first one, by arm and condition."""

PAGE, GROUP = "comparison.html", "compared arm"

_MOST = 40
"""How many settings that differ are listed."""


def write_comparison(summaries: Summaries, out: Path, *, between: Between | None = None) -> Path:
    """Write ``comparison.html``, ``comparison.md`` and ``comparison.csv``; return the page.

    Args:
        summaries: summaries of two or more studies.
        out: folder to write to.
        between: as ``vicinal.studies.between_studies.differences_between`` returns them.

    Raises:
        UserError: if the studies share no arm or no metric, or a file cannot be written.
    """
    between = {name: one for name, one in (between or {}).items() if one}
    plain = _plain_rows(summaries, between)
    between = {visible(name): one for name, one in between.items()}
    shown = with_text({visible(name): one for name, one in summaries.items()}, visible)
    table, notes = arms_table(shown, between), comparison_notes(shown, between)
    changed = settings_table(shown)
    page = render(
        "comparison.html.j2", names=list(shown), table=table, notes=notes, settings=changed
    )
    head, rows = with_text(table, escaped)
    parts = [markdown_table(head, "-" * len(head), rows)]
    parts.append("\n".join(f"- {escaped(note)}" for note in notes))
    if changed[1]:
        head, rows = with_text(changed, escaped)
        parts += ["## Settings that differ", markdown_table(head, "-" * len(head), rows)]
    files = {PAGE: page, "comparison.md": "\n\n".join(parts) + "\n"}
    files["comparison.csv"] = csv_text(plain)
    for name, text in files.items():
        write_whole(out / name, text)
    return out / PAGE


def arms_table(summaries: Summaries, between: Between) -> Table:
    """Return the table of the arms that all studies share, with a row for each study.

    Raises:
        UserError: if they share no arm or no metric.
    """
    arms, metrics = _shared(summaries, _arms), _shared(summaries, _metrics)
    for what, found, advice in (
        ("arm under the same condition", arms, "Add the same arms and corrupted_labels"),
        ("metric", metrics, "Add the same metrics"),
    ):
        if not found:
            tasks = dict.fromkeys(one["task"] for one in summaries.values())
            what_to_do = f"{advice} to each recipe, or compare other studies"
            if len(tasks) > 1:
                what_to_do = f"Their tasks differ ({', '.join(tasks)}): compare other studies"
            raise UserError(
                f"expected studies with a common {what}, got none in {', '.join(summaries)}. "
                f"{what_to_do}."
            )
    first, (leading, *others) = next(iter(summaries.values())), metrics
    heads = {
        name: [metric_title(first, name), f"{first['metrics'][name]['title']}, difference"]
        for name in metrics
    }
    head = [GROUP, "study", *heads[leading], "verdict", "trials"]
    if between:
        head.insert(3, f"difference from {next(iter(summaries))}")
    head += [one for name in others for one in heads[name]]
    rows = []
    for arm in arms:
        for study, summary in summaries.items():
            row = next(one for one in summary["rows"] if (one["arm"], one["condition"]) == arm)
            cells = {
                name: [
                    interval(summary, name, row["metrics"][name]),
                    interval(summary, name, row["metrics"][name]["difference"], sign=True),
                ]
                for name in metrics
            }
            judged = [row["verdict"] or "—", str(row["n"])]
            more = [one for name in others for one in cells[name]]
            rows.append([_group(summaries, study, arm), study, *cells[leading], *judged, *more])
            if between:
                apart = between.get(study, {}).get(arm)
                shown = interval(summary, leading, apart, sign=True) if apart else "—"
                rows[-1].insert(3, shown)
    return head, rows


def comparison_notes(summaries: Summaries, between: Between) -> list[str]:
    """Return how to read the table: data, baselines, and what is not shared."""
    notes = []
    for split, words in (("test", "test"), ("train", "training")):
        hashes = {name: one["data"][split]["sha256"] for name, one in summaries.items()}
        if len(set(hashes.values())) == 1:
            notes.append(f"All studies have the same {words} examples.")
            continue
        groups: dict[str, list[str]] = {}
        for name, digest in hashes.items():
            groups.setdefault(digest, []).append(name)
        parts = " | ".join(", ".join(names) for names in groups.values())
        notes.append(
            f"Warning: different {words} examples, or the same ones prepared in another way "
            f"({parts}), so results differ for that reason too."
        )
    baselines = {name: title(one, one["settings"]["baseline"]) for name, one in summaries.items()}
    if len(set(baselines.values())) == 1:
        own = next(iter(baselines.values()))
        notes.append(f"Differences without another name are from {own} in the same study.")
    else:
        parts = ", ".join(f"{one} in {name}" for name, one in baselines.items())
        notes.append(f"Warning: differences are from different baselines: {parts}.")
    primary = {name: one["metric"] for name, one in summaries.items()}
    if len(set(primary.values())) > 1:
        parts = ", ".join(f"{one} in {name}" for name, one in primary.items())
        notes.append(f"Warning: verdicts are about different metrics: {parts}.")
    if between:
        notes.append(
            f"“Difference from {next(iter(summaries))}” is that of the same arm in two studies, "
            "with a 95% interval over other seeds of both and other test examples, not adjusted "
            "for the number of comparisons."
        )
    if len(between) < len(summaries) - 1:
        notes.append(
            "Intervals are 95% intervals within a study. Without a column for the difference "
            "between two studies, only intervals that do not overlap at all suggest one."
        )
    arms, metrics = _shared(summaries, _arms), _shared(summaries, _metrics)
    for name, summary in summaries.items():
        others = {
            "Arms": [_group(summaries, name, one) for one in _arms(summary) if one not in arms],
            "Metrics": [one for one in _metrics(summary) if one not in metrics],
        }
        notes += [
            f"{what} of {name} only: {', '.join(some)}." for what, some in others.items() if some
        ]
        notes += [f"{name}: {sentence}" for sentence in reservations(summary)]
    return notes


def settings_table(summaries: Summaries) -> Table:
    """Return the settings that differ between the studies."""
    ignored = ("name", "published", "known_differences", "shortened", "arms")
    settings = {}
    for name, summary in summaries.items():
        recipe = {k: v for k, v in summary["settings"].items() if k not in ignored}
        shared = {arm for arm, _ in _shared(summaries, _arms)}
        recipe["arms"] = {k: v for k, v in summary["settings"]["arms"].items() if k in shared}
        settings[name] = flat(recipe)
    fields = dict.fromkeys(field for one in settings.values() for field in one)
    rows = []
    for field in fields:
        values = [_shown(one.get(field)) for one in settings.values()]
        if len(set(values)) > 1:
            rows.append([field, *values])
    if len(rows) > _MOST:
        rows[_MOST:] = [[f"and {len(rows) - _MOST} more", *[""] * len(summaries)]]
    return ["setting", *summaries], rows


def _shown(value: Any) -> str:
    """Return a setting as it is written in TOML."""
    if value is None:
        return "—"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _arms(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(row["arm"], row["condition"]) for row in summary["rows"]]


def _metrics(summary: Mapping[str, Any]) -> list[str]:
    return list(summary["metrics"])


def _shared(summaries: Summaries, of: Any) -> list[Any]:
    """Return what all summaries have, in the order of the first."""
    first, *others = (of(summary) for summary in summaries.values())
    return [one for one in first if all(one in other for other in others)]


def _plain_rows(summaries: Summaries, between: Between) -> list[dict[str, Any]]:
    """Return the numbers of what all studies share, a row for each arm of each study."""
    arms, metrics = _shared(summaries, _arms), _shared(summaries, _metrics)
    rows = []
    for study, summary in summaries.items():
        kept = [
            row | {"metrics": {name: row["metrics"][name] for name in metrics}}
            for row in summary["rows"]
            if (row["arm"], row["condition"]) in arms
        ]
        for row in csv_rows({"rows": kept}):
            found = between.get(study, {}).get((row["arm"], row["condition"])) or {}
            names = ("value", "low", "high") if between else ()
            from_first = {f"from_first_{name}": found.get(name) for name in names}
            rows.append({"study": study, **row, **from_first})
    return rows


def _group(summaries: Summaries, study: str, arm: tuple[str, str]) -> str:
    """Return the title of an arm in a study, with its condition if any of the studies names it."""
    several = any(names_conditions(one) for one in summaries.values())
    return f"{title(summaries[study], arm[0])}{f', {arm[1]}' * several}"


def unique_names(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return a name for each study: its own, with its folder if another has the same.

    Example:
        >>> unique_names([Path("a"), Path("b"), Path("c")], ["digits", "digits", "iris"])
        ['digits (a)', 'digits (b)', 'iris']
    """
    return [
        f"{name} ({folder})" if list(names).count(name) > 1 else name
        for folder, name in zip(folders, names, strict=True)
    ]
