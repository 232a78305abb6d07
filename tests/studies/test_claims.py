import json
import re
import signal
import subprocess
import sys

import joblib
import pytest

from vicinal.errors import StoppedError, UserError
from vicinal.reports.claims_page import (
    answer,
    claims_tables,
    reasons_withheld,
    run_claims,
    write_claims,
)
from vicinal.studies.claims import Claim, outcomes, read_claims
from vicinal.studies.probe_measures import measures_of
from vicinal.training.gan_recipe import read_gan_recipe
from vicinal.training.recipe import is_gan_recipe, read_recipe, read_settings


def claim(**changes):
    fields = {"group": "g", "claim": "c.", "published": "p", "recipe": "digits", "arm": "mixup"}
    return Claim.model_validate(fields | changes)


def summary(value, p, *, failed=(), withheld=None):
    """A summary of two arms, whose difference is ``value``."""

    def row(arm, number, difference):
        metric = {"value": number, "low": number - 1, "high": number + 1, "difference": difference}
        return {
            "arm": arm,
            "condition": "true labels",
            "metrics": {"accuracy": metric},
            "failed": [],
            "withheld": withheld,
        }

    difference = {"value": value, "low": value - 2, "high": value + 2, "p": p, "detectable": 2.0}
    return {
        "settings": {"baseline": "erm", "seeds": 1},
        "metrics": {"accuracy": {"percent": True}},
        "rows": [row("erm", 90.0, None), row("mixup", 90 + value, difference)],
        "probes": [],
        "failed_checks": [{"arm": "mixup", "name": one} for one in failed],
    }


def test_every_claim_names_an_arm_and_a_measure_of_a_recipe_that_exists():
    for one in read_claims():
        if is_gan_recipe(read_settings(one.recipe)):
            recipe = read_gan_recipe(one.recipe, variant=one.variant)
            assert one.arm in recipe.gan.arms
            assert one.mixture in recipe.gan.data
            continue
        recipe = read_recipe(one.recipe, variant=one.variant)
        assert one.arm in recipe.arms
        assert one.corrupted in recipe.corrupted_labels
        probes = {(m.series, m.x) for m in measures_of(recipe.probes)}
        assert (one.measure, one.at) in probes | {("accuracy", None)}, one
        assert recipe.seeds >= 5, one


@pytest.mark.parametrize(
    ("value", "p", "lower", "verdict"),
    [
        (1.0, 0.001, False, "holds"),
        (1.0, 0.001, True, "the opposite"),
        (-1.0, 0.001, False, "the opposite"),
        (-1.0, 0.001, True, "holds"),
        (1.0, 0.2, False, "no evidence"),
    ],
)
def test_a_claim_holds_if_its_direction_is_significant(value, p, lower, verdict):
    (found,) = outcomes([claim(lower=lower)], {"digits": summary(value, p)}, {})
    assert found.verdict == verdict


def test_p_values_are_adjusted_for_all_claims():
    claims = [claim(recipe=name) for name in ("a", "b", "c")]
    summaries = {name: summary(1.0, p) for name, p in zip("abc", (0.02, 0.01, 0.5), strict=True)}
    found = outcomes(claims, summaries, {})
    # Holm: 0.01 * 3, then 0.02 * 2.
    assert [one.p for one in found] == pytest.approx([0.04, 0.03, 0.5])
    assert [one.verdict for one in found] == ["holds", "holds", "no evidence"]


def test_claims_that_were_not_measured_count_in_the_adjustment():
    claims = [claim(recipe=name) for name in ("a", "b", "c")]
    first, *_ = outcomes(claims, {"a": summary(1.0, 0.02)}, {"b": "no data", "c": "no data"})
    assert first.p == pytest.approx(0.06)
    assert first.verdict == "no evidence"


def test_a_study_that_did_not_run_is_shown_with_the_reason():
    (found,) = outcomes([claim()], {}, {"digits": "no such file"})
    assert (found.verdict, found.reason) == ("not run", "no such file")
    ((_, rows),) = claims_tables([found]).values()
    assert rows[0][-1] == "not run"
    assert reasons_withheld([found]) == ["c: not run, no such file"]
    assert answer([found]) == "Of 1 claims, 1 was not measured."


def test_a_study_whose_summary_lacks_the_measure_is_shown_with_the_reason():
    (found,) = outcomes([claim(measure="of old")], {"digits": summary(1.0, 0.001)}, {})
    assert found.verdict == "not run"
    assert "that of another version of vicinal: delete the folder" in found.reason


def test_a_verdict_that_its_study_withholds_is_withheld():
    (found,) = outcomes([claim()], {"digits": summary(1.0, 0.001, withheld="too few")}, {})
    assert (found.verdict, found.reason) == ("withheld", "too few")


def test_one_seed_is_the_reason_why_a_verdict_on_a_probe_is_withheld():
    found = summary(1.0, 0.001)
    measure = {"series": "accuracy under FGSM", "x": 16.0, "percent": True}
    rows = [
        {"arm": row["arm"], "condition": row["condition"]} | row["metrics"]["accuracy"]
        for row in found["rows"]
    ]
    for row in rows:
        row["difference"] = row["difference"] and row["difference"] | {"p": None}
    found["probes"] = [measure | {"rows": rows}]
    (found,) = outcomes([claim(measure="accuracy under FGSM", at=16)], {"digits": found}, {})
    assert (found.verdict, found.reason) == ("withheld", "one seed gives no interval")


def test_an_arm_without_a_probed_trial_withholds_the_verdict():
    found = summary(1.0, 0.001)
    row = found["rows"][0]
    measure = {"series": "accuracy under FGSM", "x": 16.0, "percent": True}
    rows = [{"arm": row["arm"], "condition": row["condition"]} | row["metrics"]["accuracy"]]
    found["probes"] = [measure | {"rows": rows}]
    found["rows"][1]["failed"] = [{"seed": 0}]
    (found,) = outcomes([claim(measure="accuracy under FGSM", at=16)], {"digits": found}, {})
    assert (found.verdict, found.reason) == ("withheld", "trials failed")


@pytest.mark.parametrize("failed", [[], [0]])
def test_the_exit_code_says_whether_trials_of_any_arm_failed(
    failed, tmp_path, monkeypatch, vicinal
):
    one = summary(1.0, 0.001)
    one["rows"].append(one["rows"][1] | {"arm": "other", "failed": failed})

    def claims(out, *, seeds):
        found = outcomes([claim()], {"digits": one}, {})
        write_claims(out, found)
        return found

    monkeypatch.setattr("vicinal.api.claims", claims)
    done = vicinal("study", "claims", "--out", tmp_path)
    assert done.exit_code == (3 if failed else 0)
    assert f"report: {tmp_path / 'claims.html'}" in done.stdout


def test_a_verdict_on_attacks_is_withheld_if_gradients_may_be_masked():
    attacked = summary(1.0, 0.001, failed=["noise"])
    measure = {"series": "accuracy under FGSM", "x": 16.0, "percent": True}
    measure["rows"] = [
        {"arm": row["arm"], "condition": row["condition"]} | row["metrics"]["accuracy"]
        for row in attacked["rows"]
    ]
    attacked["probes"] = [measure]
    (found,) = outcomes([claim(measure="accuracy under FGSM", at=16)], {"digits": attacked}, {})
    assert found.verdict == "withheld"
    assert found.reason == "gradients may be masked: noise"


@pytest.fixture
def one_process():
    """Run studies in this process, one after the other."""
    with joblib.parallel_config("sequential"):
        yield


@pytest.mark.usefixtures("one_process")
def test_studies_whose_data_are_missing_are_left_out_and_the_others_run(tmp_path, monkeypatch):
    claims = [claim(recipe="a"), claim(recipe="b"), claim(recipe="a", lower=True)]
    monkeypatch.setattr("vicinal.reports.claims_page.read_claims", lambda: claims)
    runs, said = [], []

    def run(one, folder):
        runs.append(folder.name)
        if one.recipe == "b":
            raise UserError("b is not there")
        return summary(3.0, 0.001)

    found = run_claims(tmp_path, run, said.append)
    assert runs == ["a", "b"]
    assert [one.verdict for one in found] == ["holds", "not run", "the opposite"]
    assert "b is left out: b is not there" in said
    assert any(re.fullmatch(r"\[1/2\] a in \d s", sentence) for sentence in said)
    written = json.loads((tmp_path / "claims.json").read_text())
    assert [one["verdict"] for one in written] == ["holds", "not run", "the opposite"]
    page = (tmp_path / "claims.html").read_text()
    assert 'href="a/report.html"' in page
    assert "+3.0 points [+1.0, +5.0]" in page.replace("\xa0", " ")


@pytest.mark.usefixtures("one_process")
def test_if_no_study_can_run_the_first_reason_is_the_error(tmp_path):
    def run(*_):
        raise UserError("nothing is there")

    with pytest.raises(UserError, match=r"none of the studies could run\. .*nothing is there"):
        run_claims(tmp_path, run, lambda _: None)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("mixture", ["grid", None])
def test_a_signal_stops_all_studies_of_claims(tmp_path, monkeypatch, mixture):
    claims = [claim(recipe="a", mixture=mixture), claim(recipe="b")]
    monkeypatch.setattr("vicinal.reports.claims_page.read_claims", lambda: claims)
    runs = []

    def run(one, folder):
        runs.append(one.recipe)
        signal.raise_signal(signal.SIGTERM)
        return summary(3.0, 0.001)

    with pytest.raises(KeyboardInterrupt):
        run_claims(tmp_path, run, lambda _: None)
    assert runs == ["a"]


@pytest.mark.usefixtures("one_process")
def test_a_signal_to_one_study_stops_all_of_them(tmp_path, monkeypatch):
    claims = [claim(recipe="a"), claim(recipe="b")]
    monkeypatch.setattr("vicinal.reports.claims_page.read_claims", lambda: claims)
    runs = []

    def run(one, folder):
        runs.append(one.recipe)
        raise StoppedError("stopped by SIGTERM")

    with pytest.raises(StoppedError):
        run_claims(tmp_path, run, lambda _: None)
    assert runs == ["a"]


def test_a_process_that_is_killed_is_named(tmp_path, monkeypatch):
    claims = [claim(recipe="a"), claim(recipe="b")]
    monkeypatch.setattr("vicinal.reports.claims_page.read_claims", lambda: claims)
    # A function of this module would be looked up in a module that the process cannot import.
    run = eval("lambda claim, folder: __import__('os').kill(__import__('os').getpid(), 9)")
    with pytest.raises(UserError, match="a process that trained was killed"):
        run_claims(tmp_path, run, lambda _: None)


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from vicinal.reports import claims_page
from vicinal.studies.claims import Claim

fields = {"group": "g", "claim": "c", "published": "p", "arm": "mixup"}
claims = [Claim(recipe=name, **fields) for name in ("a", "b")]
claims_page.read_claims = lambda: claims

def run(claim, folder):
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(1000)

try:
    claims_page.run_claims(Path(sys.argv[1]), run, print)
except KeyboardInterrupt:
    print("stopped")
"""


def test_a_signal_ends_the_processes_in_which_studies_run(tmp_path):
    # A process that outlives its parent keeps stdout open, until the timeout.
    command = [sys.executable, "-c", PROGRAM, tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "stopped", done.stderr
