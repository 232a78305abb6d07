"""The claims of the mixup paper: which study measures each, and what came out."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple

import pydantic
from pydantic import Field

from vicinal.studies.statistics import LEVEL, holm
from vicinal.training.recipe_table import Settings
from vicinal.training.trial_result import condition_name

Verdict = Literal["holds", "the opposite", "no evidence", "withheld", "not run"]


class Claim(Settings):
    """A claim, and the number of a study that it is about."""

    group: str = Field(description="the section of the page")
    claim: str = Field(description="what is claimed, as a sentence")
    published: str = Field(description="what was published, with its source")
    recipe: str = Field(description="the recipe of the study")
    variant: str | None = Field(None, description="and its variant")
    arm: str = Field(description="the arm that is compared with the baseline")
    corrupted: float = Field(0.0, description="its fraction of corrupted labels")
    mixture: str | None = Field(None, description="of a study of GANs")
    measure: str = Field("accuracy", description="a metric, or the series of a probe")
    at: float | None = Field(None, description="x of the series")
    lower: bool = Field(False, description="whether a smaller value is claimed")

    @property
    def study(self) -> str:
        """The name of the study, which is also that of its folder."""
        return self.recipe if self.variant is None else f"{self.recipe}-{self.variant}"


class Outcome(NamedTuple):
    """What a study says about a claim.

    Args:
        claim: the claim.
        baseline: the row of the baseline, with ``value``, ``low`` and ``high``.
        row: that of the arm, also with its ``difference``.
        percent: whether values are percentages.
        p: p-value of the difference, adjusted for all claims (Holm); None if there is none.
        verdict: what the numbers say.
        reason: why the verdict is withheld, or why the study did not run.
        failed: how many trials of the study failed, also of other arms.
    """

    claim: Claim
    baseline: Mapping[str, Any]
    row: Mapping[str, Any]
    percent: bool
    p: float | None
    verdict: Verdict
    reason: str
    failed: int = 0


_CLAIMS = pydantic.TypeAdapter(list[Claim])


def read_claims() -> list[Claim]:
    """Return the claims, in the order of the page.

    Example:
        >>> read_claims()[0].study
        'paper-cifar10-stand-in'
    """
    text = (resources.files("vicinal.studies") / "claims.toml").read_text("utf-8")
    return _CLAIMS.validate_python(tomllib.loads(text)["claims"])


def outcomes(
    claims: Sequence[Claim], summaries: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, str]
) -> list[Outcome]:
    """Return what studies say about claims, adjusted for the number of claims.

    Args:
        claims: the claims.
        summaries: summaries of the studies that ran, by name.
        reasons: why the others did not run, by name.
    """
    found = [_outcome(one, summaries.get(one.study), reasons.get(one.study, "")) for one in claims]
    tested = [k for k, one in enumerate(found) if one.p is not None]
    others = [1.0] * (len(found) - len(tested))
    adjusted = holm([found[k].p or 0.0 for k in tested] + others)
    for k, p in zip(tested, adjusted, strict=False):
        found[k] = found[k]._replace(p=p, verdict=_verdict(found[k], p))
    return [one._replace(failed=failed_trials(summaries.get(one.claim.study))) for one in found]


def failed_trials(summary: Mapping[str, Any] | None) -> int:
    """Return how many trials of a study failed."""
    return sum(len(row.get("failed") or ()) for row in (summary or {"rows": ()})["rows"])


def _verdict(outcome: Outcome, p: float) -> Verdict:
    if outcome.reason:
        return "withheld"
    if p >= 1 - LEVEL:
        return "no evidence"
    fell = outcome.row["difference"]["value"] < 0
    return "holds" if fell == outcome.claim.lower else "the opposite"


def _outcome(claim: Claim, summary: Mapping[str, Any] | None, reason: str) -> Outcome:
    if summary is None:
        return Outcome(claim, {}, {}, False, None, "not run", reason)
    if "gan" in summary:
        return _gan_outcome(claim, summary)
    condition, arms = condition_name(claim.corrupted), (summary["settings"]["baseline"], claim.arm)
    rows = {one["arm"]: one for one in summary["rows"] if one["condition"] == condition}
    if claim.measure in summary["metrics"]:
        percent = summary["metrics"][claim.measure]["percent"]
        pair = [rows[arm]["metrics"][claim.measure] for arm in arms]
    else:
        wanted = (claim.measure, claim.at)
        measure = next((m for m in summary["probes"] if (m["series"], m["x"]) == wanted), None)
        if measure is None:
            reason = "its summary is that of another version of vicinal: delete the folder"
            return Outcome(claim, {}, {}, False, None, "not run", reason)
        percent = measure["percent"]
        own = {one["arm"]: one for one in measure["rows"] if one["condition"] == condition}
        none = {"value": None, "low": None, "high": None, "difference": None}
        pair = [own.get(arm, none) for arm in arms]
    failed = [one["name"] for one in summary["failed_checks"] if one["arm"] in arms]
    about_attacks = claim.measure.startswith("accuracy under")
    if about_attacks and failed:
        reason = f"gradients may be masked: {', '.join(dict.fromkeys(failed))}"
    elif any(rows[arm]["failed"] for arm in arms):
        reason = "trials failed"
    elif claim.measure in summary["metrics"]:
        reason = rows[claim.arm]["withheld"] or ""
    p = (pair[1]["difference"] or {}).get("p")
    verdict: Verdict = "withheld" if p is None else "no evidence"
    if p is None and not reason:
        reason = _without_interval(summary["settings"]["seeds"])
    return Outcome(claim, pair[0], pair[1], percent, p, verdict, reason)


def _without_interval(seeds: int) -> str:
    return "one seed gives no interval" if seeds == 1 else "there is no interval"


def _gan_outcome(claim: Claim, summary: Mapping[str, Any]) -> Outcome:
    """Return what a study of GANs says about a claim."""
    rows = {one["arm"]: one for one in summary["rows"] if one["data"] == claim.mixture}
    baseline, own = (
        rows[arm]["measures"][claim.measure] for arm in (summary["baseline"], claim.arm)
    )
    difference = own["difference"]
    if difference is None:
        return Outcome(claim, baseline, own, True, None, "withheld", "a GAN is not finite")
    row = own | {"difference": difference | {"value": difference["mean"]}}
    percent, p = claim.measure == "good", difference["p"]
    if p is None:
        reason = _without_interval(summary["seeds"])
        return Outcome(claim, baseline, row, percent, p, "withheld", reason)
    return Outcome(claim, baseline, row, percent, p, "no evidence", "")
