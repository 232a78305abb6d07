"""The claims of the mixup paper on one page: what was claimed, published, and measured here."""

import json
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

from vicinal.errors import StoppedError, UserError
from vicinal.escaping import visible, with_text
from vicinal.files import write_whole
from vicinal.reports.page import render
from vicinal.reports.study_cells import Table
from vicinal.reports.summary_values import measure_text
from vicinal.reports.svg import FAINT, SvgFigure, arm_color, figure_style, to_svg
from vicinal.reports.table_files import escaped, markdown_table
from vicinal.reports.terminal import plain_table
from vicinal.studies.claims import Claim, Outcome, failed_trials, outcomes, read_claims
from vicinal.studies.gan import MEASURES, killed_processes_named
from vicinal.training.stop_signals import interrupt_on_stop_signals

PAGE = "claims.html"

Run = Callable[[Claim, Path], Mapping[str, Any]]
Finished = tuple[str, Mapping[str, Any] | str, float]
"""The name of a study, its summary or why it could not run, and its seconds."""

HEAD = ("claim", "published", "measured", "baseline", "compared arm", "difference", "verdict")


def run_claims(out: Path, run: Run, log: Callable[[str], None]) -> list[Outcome]:
    """Run the study of every claim, as many at a time as there are cores, and write the page.

    Studies whose data are missing are left out, with the reason.

    Args:
        out: folder, in which each study gets a folder of its own.
        run: runs the study of a claim in a folder, and returns its summary; perhaps in another
            process.
        log: reports to the user.

    Raises:
        UserError: if no study could run, or a file cannot be written.
        KeyboardInterrupt: at Ctrl-C, SIGTERM and SIGHUP; processes that train are ended.
    """
    claims, summaries, reasons = read_claims(), dict[str, Mapping[str, Any]](), dict[str, str]()
    studies = list({claim.study: claim for claim in claims}.values())
    log(f"{len(studies)} studies, as many at a time as there are cores")
    with interrupt_on_stop_signals():
        for k, (name, found, seconds) in enumerate(_finished(run, studies, out), 1):
            if isinstance(found, str):
                reasons[name] = found
                log(f"{name} is left out: {found}")
            else:
                summaries[name] = found
                failed = failed_trials(found)
                more = f"; {failed} trials failed, see its report" if failed else ""
                log(f"[{k}/{len(studies)}] {name} in {seconds:.0f} s{more}")
            # After each study, so that an interruption loses none.
            results = outcomes(claims, summaries, reasons)
            write_claims(out, results)
    if not summaries:
        first = next(iter(reasons.values()))
        raise UserError(f"none of the studies could run. The first one failed: {first}")
    return results


def _finished(run: Run, studies: Sequence[Claim], out: Path) -> Iterator[Finished]:
    """Run studies, and yield each as it is finished or cannot run."""
    gans = [claim for claim in studies if claim.mixture]  # each uses all cores by itself
    yield from (_tried(run, claim, out) for claim in gans)
    others = [claim for claim in studies if not claim.mixture]
    processes = max(min(joblib.cpu_count(), len(others)), 1)
    with killed_processes_named():
        yield from joblib.Parallel(n_jobs=processes, return_as="generator_unordered")(
            joblib.delayed(_tried)(run, claim, out) for claim in others
        )


def _tried(run: Run, claim: Claim, out: Path) -> Finished:
    began = time.monotonic()
    found: Mapping[str, Any] | str
    try:
        found = run(claim, out / claim.study)
    except StoppedError:  # a signal to this process alone
        raise
    except UserError as error:
        found = str(error)
    return claim.study, found, time.monotonic() - began


def write_claims(out: Path, found: Sequence[Outcome]) -> None:
    """Write ``claims.html``, ``claims.md`` and ``claims.json``."""
    plain = [
        {**one._asdict(), "claim": one.claim.model_dump(), "study": one.claim.study}
        for one in found
    ]
    tables = claims_tables(found)
    parts = []
    for group, table in tables.items():
        head, rows = with_text(table, escaped)
        parts.append(f"## {group}\n\n{markdown_table(head, '-' * len(head), rows)}")
    parts += [f"- {escaped(sentence)}" for sentence in reasons_withheld(found)]
    page = render(
        "claims.html.j2",
        tables=tables,
        answer=answer(found),
        differences=differences_figure(found),
        reasons=reasons_withheld(found),
        studies=list(dict.fromkeys(one.claim.study for one in found if one.row)),
    )
    for name, text in (
        ("claims.json", json.dumps(plain, indent=2, allow_nan=False) + "\n"),
        ("claims.md", "\n\n".join(parts) + "\n"),
        (PAGE, page),
    ):
        write_whole(out / name, text)


def print_claims(found: Sequence[Outcome], console: Console) -> None:
    """Print each claim with its difference and verdict, and the counts below, within 80 columns."""
    for group, (_, rows) in claims_tables(found).items():
        table = plain_table(padding=0, title=group)
        table.add_column("claim", overflow="fold")
        table.add_column("difference", max_width=20)
        table.add_column("verdict", no_wrap=True)
        for claim, *_, difference, verdict in rows:
            table.add_row(*map(Text, (claim, difference, verdict)))
        console.print(table)
    for sentence in (*reasons_withheld(found), answer(found)):
        console.print(Text(sentence))


def answer(found: Sequence[Outcome]) -> str:
    """Return the counts of the verdicts as a sentence.

    Example:
        >>> answer([])
        'No claim was measured.'
    """
    if not found:
        return "No claim was measured."
    texts = {
        "holds": "{} hold{s}",
        "the opposite": "the opposite of {} was found",
        "no evidence": "there is no evidence on {}",
        "withheld": "the verdict on {} is withheld",
        "not run": "{} {were} not measured",
    }
    counts = {text: sum(one.verdict == name for one in found) for name, text in texts.items()}
    parts = [
        text.format(count, s="s" * (count == 1), were="was" if count == 1 else "were")
        for text, count in counts.items()
        if count
    ]
    return f"Of {len(found)} claims, {', '.join(parts)}."


def claims_tables(found: Sequence[Outcome]) -> dict[str, Table]:
    """Return a table for each group of claims."""
    tables: dict[str, Table] = {}
    for one in found:
        _, rows = tables.setdefault(one.claim.group, (list(HEAD), []))
        rows.append(
            [
                one.claim.claim,
                one.claim.published,
                measure_title(one.claim),
                _text(one, one.baseline),
                _text(one, one.row),
                _text(one, one.row.get("difference"), sign=True),
                one.verdict,
            ]
        )
    return tables


def reasons_withheld(found: Sequence[Outcome]) -> list[str]:
    """Return a sentence for each claim whose verdict is withheld, or whose study did not run."""
    return [
        visible(f"{one.claim.claim.rstrip('.')}: {one.verdict}, {one.reason}")
        for one in found
        if one.reason
    ]


def measure_title(claim: Claim) -> str:
    """Return what is measured for a claim, in words.

    Example:
        >>> measure_title(read_claims()[0])
        'accuracy'
    """
    if claim.mixture:
        return MEASURES[claim.measure].title
    return claim.measure if claim.at is None else f"{claim.measure}, at {claim.at:g}"


def _text(one: Outcome, row: Mapping[str, Any] | None, *, sign: bool = False) -> str:
    unit = "%" if one.percent and not sign else " points" if one.percent else ""
    return measure_text(row, percent=one.percent, unit=unit, sign=sign)


def differences_figure(found: Sequence[Outcome]) -> SvgFigure | None:
    """Plot the differences that are percentages, with their intervals; None without any."""
    drawn = [
        one
        for one in found
        if one.percent and one.row and (one.row["difference"] or {}).get("low") is not None
    ]
    if not drawn:
        return None
    with figure_style():
        figure = Figure(figsize=(8, 0.8 + 0.36 * len(drawn)))
        axes = figure.add_subplot()
        axes.axvline(0, color=FAINT, linewidth=1)
        for height, one in enumerate(drawn):
            difference = one.row["difference"]
            sign = -1 if one.claim.lower else 1
            ends = sorted(sign * difference[end] for end in ("low", "high"))
            color = arm_color({"holds": 3, "the opposite": 2}.get(one.verdict, 0))
            axes.plot(sign * difference["value"], height, "o", color=color)
            axes.plot(ends, [height] * 2, color=color)
        names = [textwrap.fill(one.claim.claim.rstrip("."), 58) for one in drawn]
        axes.set_yticks(range(len(drawn)), names)
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.set_xscale("symlog", linthresh=2, linscale=0.5)  # from 0.1 to 80 points
        ticks = [-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("difference in the claimed direction, points (logarithmic beyond 2)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        text = "; ".join(
            f"{one.claim.claim.rstrip('.')}: {_text(one, one.row['difference'], sign=True)}"
            for one in drawn
        )
        return to_svg("claims", f"Differences from the baseline: {text}.", figure)
