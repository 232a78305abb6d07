import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.special import softmax
from scipy.stats import norm

from vicinal.api import study
from vicinal.data import DataSet, Split, load
from vicinal.errors import UserError
from vicinal.probes import calibration_of_logits
from vicinal.probes.out_of_distribution import _fpr95
from vicinal.reports.probe_sections import probe_sections
from vicinal.studies.probe_measures import Probed, measures_of, smaller_of
from vicinal.studies.probing import (
    PROBES,
    checks_not_run,
    ensemble_rows,
    failed_checks,
    probe_rows,
    read_probed,
)
from vicinal.studies.study import Study, open_study
from vicinal.studies.trial_probes import check_probes
from vicinal.training.probe_settings import Between, Probes
from vicinal.training.recipe import load_resolved, read_recipe
from vicinal.training.trained_network import load_network
from vicinal.training.trial_result import Trial

pytestmark = pytest.mark.usefixtures("without_figures")

ALL = {
    "attacks": {"epsilons": [8.0, 32.0], "examples": 40},
    "between": {"pairs": 20},
    "calibration": True,
    "memorization": True,
    "ood": {"source": "digits"},
}
CHANGES = {"seeds": 2, "corrupted_labels": [0.4], "arms.mixup-features": None, "probes": ALL}


@pytest.fixture(scope="module")
def probed(tmp_path_factory, recipe_text):
    """The folder of a small study with all probes."""
    folder = tmp_path_factory.mktemp("probed")
    (folder / "small.toml").write_text(recipe_text(CHANGES))
    study(folder / "small.toml", out=folder / "study", quiet=True)
    return folder / "study"


def values_of(folder, trial):
    return load_file(folder / "trials" / trial / PROBES)


def measure(summary, series, x=None):
    (found,) = (one for one in summary["probes"] if (one["series"], one["x"]) == (series, x))
    return {row["arm"]: row for row in found["rows"]}


def test_the_summary_has_every_measure_of_every_arm_with_the_mean_over_all_values(probed):
    summary = json.loads((probed / "summary.json").read_text())
    measures = measures_of(Probes.model_validate(ALL))
    assert len(summary["probes"]) == len(measures) + 4  # of the ensemble
    for one in measures:
        rows = measure(summary, one.series, one.x)
        assert rows.keys() == {"erm", "mixup"}
        for arm, row in rows.items():
            own = [values_of(probed, f"{arm}-40-corrupted-seed{k}")[one.key] for k in (0, 1)]
            scale = 100 if one.metric.percent else 1
            assert row["value"] == pytest.approx(scale * np.mean(own), rel=1e-5, abs=1e-4)
        assert rows["mixup"]["difference"]["value"] == pytest.approx(
            rows["mixup"]["value"] - rows["erm"]["value"], rel=1e-4, abs=2e-3
        )


def test_accuracy_at_epsilon_zero_is_that_of_a_sample_of_the_test_examples(probed):
    trial = probed / "trials" / "mixup-40-corrupted-seed1"
    outputs = load_file(trial / "outputs.safetensors")
    chance = torch.Generator().manual_seed(0)
    rows = sorted(torch.randperm(len(outputs["targets"]), generator=chance)[:40].tolist())
    assert len({int(outputs["targets"][row]) for row in rows}) > 5
    right = (outputs["last"].argmax(1) == outputs["targets"])[rows]
    values = values_of(probed, trial.name)
    for series in ("accuracy under noise", "accuracy under I-FGSM, 10 steps, transferred"):
        np.testing.assert_array_equal(values[f"{series} at 0"], right)
    strong, weak = (values[f"accuracy under PGD, 20 steps at {eps}"].mean() for eps in (32, 8))
    assert strong < weak <= right.mean()


def test_memorization_counts_all_labels_that_were_drawn_at_random(probed):
    trial = probed / "trials" / "erm-40-corrupted-seed0"
    values = values_of(probed, trial.name)
    digits = load("digits", test_fraction=0.3)
    assert len(values["error on corrupted labels"]) == round(0.4 * len(digits.train))
    assert len(values["error on real labels"]) == len(digits.train) - round(0.4 * len(digits.train))
    # By hand: predictions of the trained network on the real labels of the others.
    network = load_network(trial / "checkpoint.safetensors")
    logits, labels = network.predictions(digits.train)
    errors = (logits.argmax(1) != labels).double().mean()
    assert values["error on real labels"].mean() == pytest.approx(errors.item(), abs=0.05)


def test_calibration_is_that_of_the_stored_outputs(probed):
    trial = probed / "trials" / "erm-40-corrupted-seed0"
    outputs = load_file(trial / "outputs.safetensors")
    found = calibration_of_logits(
        torch.from_numpy(outputs["last"]), torch.from_numpy(outputs["targets"])
    )
    values = values_of(probed, trial.name)
    assert values["NLL"].mean() == pytest.approx(found.raw.nll)
    assert values["ECE, temperature-scaled"].mean() == pytest.approx(found.scaled.ece)


def test_the_ensemble_predicts_the_mean_of_the_probabilities_of_all_seeds(probed):
    both = [
        load_file(probed / f"trials/erm-40-corrupted-seed{k}/outputs.safetensors") for k in (0, 1)
    ]
    mean = np.mean([softmax(one["last"].astype(float), 1) for one in both], axis=0)
    nll = -np.log(mean[np.arange(len(mean)), both[0]["targets"]]).mean()
    summary = json.loads((probed / "summary.json").read_text())
    found = measure(summary, "NLL of the ensemble of seeds")["erm"]
    assert found["value"] == pytest.approx(nll, abs=1e-6)


def test_examples_of_the_same_data_cannot_be_told_apart(probed):
    summary = json.loads((probed / "summary.json").read_text())
    assert measure(summary, "AUROC against the other data")["erm"]["value"] == pytest.approx(50)


def test_the_page_has_a_section_for_each_probe_and_the_checks_of_the_attacks(probed):
    page = (probed / "report.html").read_text()
    for title in (
        "Adversarial attacks",
        "Between training examples",
        "Calibration, before and after temperature scaling",
        "What was memorized",
        "Out-of-distribution detection",
    ):
        assert f"<h2>{title}</h2>" in page
    assert "check for masked gradients" in page or "failed:" in page


def test_a_measure_without_rows_of_a_condition_leaves_its_own_cells_empty(probed):
    summary = json.loads((probed / "summary.json").read_text())
    summary["probes"] = [one for one in summary["probes"] if one["probe"] == "memorization"]
    real, corrupted = summary["probes"]
    missing = real["rows"].pop(0)
    (section,) = [one for one in probe_sections(summary) if one.tables]
    (head, rows), *_ = section.tables
    title = summary["settings"]["arms"][missing["arm"]]["title"]
    line = next(line for line in rows if missing["condition"] in line and title in line)
    kept = next(
        row
        for row in corrupted["rows"]
        if (row["arm"], row["condition"]) == (missing["arm"], missing["condition"])
    )
    assert line[head.index(f"{real['series']}, %")] == "—"
    assert line[head.index(f"{corrupted['series']}, %")].startswith(f"{kept['value']:.1f}")


def test_a_check_that_failed_is_named_with_its_trial(probed):
    summary = json.loads((probed / "summary.json").read_text())
    trial = Trial("mixup", 0.4, 1)
    checks = [("noise", False, "noise changes more."), ("more steps", True, "none.")]
    probed_trials = {trial: Probed({}, checks)}
    summary["failed_checks"] = failed_checks(probed_trials)
    (section,) = [one for one in probe_sections(summary) if one.title == "Adversarial attacks"]
    assert section.remarks == [
        "input mixup, 40% corrupted, seed 1: the check “noise” failed: noise changes more."
    ]


def test_checks_that_did_not_run_are_named(probed):
    summary = json.loads((probed / "summary.json").read_text())
    checks = [("noise", True, "fine."), ("black box", None, "needs another network.")]
    trials = [Trial("mixup", 0.4, 0), Trial("mixup", 0.4, 1)]
    summary["failed_checks"] = []
    summary["checks_not_run"] = checks_not_run(dict.fromkeys(trials, Probed({}, checks)))
    (section,) = [one for one in probe_sections(summary) if one.title == "Adversarial attacks"]
    not_run = "Checks that did not run: “black box” needs another network."
    assert section.remarks == ["No check for masked gradients failed.", not_run]
    checks[0] = ("noise", False, "noise changes more.")
    summary["failed_checks"] = failed_checks({trials[0]: Probed({}, checks)})
    (section,) = [one for one in probe_sections(summary) if one.title == "Adversarial attacks"]
    assert section.remarks[0] == not_run
    assert "the check “noise” failed" in section.remarks[1]


def test_probes_of_a_study_that_gets_more_seeds_stay_although_the_next_seed_differs(
    probed,
):
    recipe = read_recipe(str(probed / "recipe.toml"))
    with open_study(recipe, probed) as study:
        probing, finished = study.probing(None, None), study.results()
    assert read_probed(probing, finished).keys() == finished.keys()
    more = dict(finished)
    for trial, one in finished.items():  # seed 1 would be attacked through seed 2 now
        more[trial._replace(seed=2)] = one.model_copy(update={"outputs": "other"})
    assert read_probed(probing, more).keys() == finished.keys()


def test_probes_are_measured_again_only_where_they_are_missing_or_have_changed(
    probed, small_recipe, vicinal
):
    again = vicinal("study", small_recipe(CHANGES), "--out", probed)
    assert "probes of" not in again.stderr
    (probed / "trials" / "erm-40-corrupted-seed0" / PROBES).write_bytes(b"damaged")
    again = vicinal("study", small_recipe(CHANGES), "--out", probed)
    assert again.stderr.count("probes of") == 1
    assert "[1/" not in again.stderr  # nothing is trained
    (probed / "trials" / "mixup-40-corrupted-seed1" / PROBES).unlink()
    assert vicinal("report", probed).exit_code == 0
    text = "The probes of 1 trial are not measured yet: run vicinal study again."
    assert text in (probed / "table.md").read_text()
    again = vicinal("study", small_recipe(CHANGES), "--out", probed)
    assert again.stderr.count("probes of") == 1
    assert text not in (probed / "table.md").read_text()
    fewer = CHANGES | {"probes": {"calibration": True}}
    again = vicinal("study", small_recipe(fewer), "--out", probed)
    assert again.stderr.count("probes of") == 4
    assert "[1/" not in again.stderr


def test_stored_probes_are_still_shown_after_the_checkpoints_were_deleted(
    probed, small_recipe, vicinal, tmp_path
):
    shutil.copytree(probed, tmp_path / "study")
    assert vicinal("report", tmp_path / "study").exit_code == 0
    before = json.loads((tmp_path / "study" / "summary.json").read_text())["probes"]
    for path in (tmp_path / "study").glob("trials/*/checkpoint.safetensors"):
        path.unlink()
    assert vicinal("report", tmp_path / "study").exit_code == 0
    assert json.loads((tmp_path / "study" / "summary.json").read_text())["probes"] == before
    assert before


def test_calibration_of_real_values_is_refused_before_training(small_recipe, vicinal, tmp_path):
    rows = "".join(f"{k},{k / 7}\n" for k in range(40))
    (tmp_path / "t.csv").write_text("a,price\n" + rows)
    changes = {"data.source": f"table:{tmp_path / 't.csv'}?label=price", "model.name": "mlp"}
    changes |= {"seeds": 1, "arms.mixup-features": None, "corrupted_labels": [0.0]}
    changes |= {"probes": {"calibration": True}, "training.batch_size": 8}
    refused = vicinal("study", small_recipe(changes), "--out", tmp_path / "study")
    assert refused.exit_code == 2
    assert "probes.calibration: expected a task of classification, got regression" in refused.stderr
    assert "[1/" not in refused.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.source": "iris", "model.name": "mlp", "probes": {"attacks": {}}},
            "probes.attacks: expected images, got iris",
        ),
        ({"probes": {"ood": {"source": "digit"}}}, "probes.ood.source: there is no"),
        ({"probes": {"attack": {}}}, "probes.attack: there is no field 'attack'"),
        ({"probes": {"attacks": {"epsilons": [300]}}}, "probes.attacks.epsilons.0"),
    ],
)
def test_a_probe_that_does_not_fit_is_refused_in_a_sentence(
    changes, message, small_recipe, vicinal, tmp_path
):
    changes = {"seeds": 1, "arms.mixup-features": None, "training.batch_size": 32} | changes
    refused = vicinal("study", small_recipe(changes), "--out", tmp_path / "study")
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert "[1/" not in refused.stderr  # nothing was trained


def test_a_condition_without_real_labels_has_no_error_on_them(small_recipe, vicinal, tmp_path):
    changes = {"corrupted_labels": [0.0, 1.0], "probes": {"memorization": True}}
    changes |= {"seeds": 2, "arms.mixup-features": None, "training.epochs": 1}
    done = vicinal("study", small_recipe(changes), "--out", tmp_path / "study")
    assert done.exit_code == 0, done.stderr
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert {one["series"] for one in summary["probes"]} == {"error on corrupted labels"}


def test_a_probe_that_fails_says_that_trials_are_kept(small_recipe, vicinal, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise UserError("model: expected a network with gradients.")

    monkeypatch.setattr("vicinal.studies.trial_probes.between", fail)
    changes = {"probes": {"between": {"pairs": 20}}, "training.epochs": 1, "seeds": 1}
    done = vicinal("study", small_recipe(changes), "--out", tmp_path / "study")
    assert done.exit_code == 2
    assert "probes of erm-true-labels-seed0: model: expected a network" in done.stderr
    assert "Finished trials are kept: remove the probe" in done.stderr
    assert vicinal("report", tmp_path / "study").exit_code == 0


def test_tokens_are_not_blended_between_examples():
    tokens = Split(torch.zeros(4, 3, dtype=torch.int64), torch.tensor([0, 1, 0, 1]))
    data = DataSet(("a", "b"), tokens, tokens)
    recipe = read_recipe("digits").model_copy(update={"probes": Probes(between=Between())})
    with pytest.raises(UserError, match=r"probes\.between: .* got the tokens of digits"):
        check_probes(recipe, data)


def test_ensembles_have_the_seeds_that_all_arms_finished(probed):
    study = Study(load_resolved(probed / "recipe.toml"), probed)
    results = study.results()
    outputs = {trial: study.outputs(trial, results) for trial in results}
    assert len(ensemble_rows(study.recipe, outputs)[0]["rows"]) == 2
    missing = Trial("mixup", 0.4, 1)
    outputs.pop(missing)
    assert ensemble_rows(study.recipe, outputs) == []


def test_epsilons_are_sorted_so_that_lines_do_not_zigzag():
    assert Probes.model_validate({"attacks": {"epsilons": [32, 8, 16, 8]}}).attacks.epsilons == (
        8,
        16,
        32,
    )


@pytest.mark.parametrize("distance", [1.5, 3.0])
def test_intervals_of_a_false_positive_rate_allow_for_the_threshold(distance):
    chance, covered = np.random.default_rng(0), []
    true = 100 * norm.cdf(norm.ppf(0.95) - distance)
    (measure,) = (m for m in measures_of(Probes(ood={"source": "x"})) if "positives" in m.series)
    recipe = read_recipe("digits")
    for _ in range(120):
        own, other = (0.8 * chance.normal(size=(1, n)) for n in (100, 1000))
        probed = {}
        for seed in range(3):
            scores = own[0] + distance, other[0]
            noisy = [one + 0.6 * chance.normal(size=len(one)) for one in scores]
            values = {measure.key: _fpr95(*noisy)[0], smaller_of(measure.key): np.zeros(100)}
            probed[Trial("erm", 0.0, seed, 0)] = Probed(values, [])
        recipe = recipe.model_copy(
            update={"probes": Probes(ood={"source": "x"}), "corrupted_labels": (0.0,)}
        )
        (found,) = probe_rows(recipe, probed, ratio=0.2)
        covered.append(found["rows"][0]["low"] <= true <= found["rows"][0]["high"])
    assert 0.9 < np.mean(covered) < 0.995


def test_a_perfect_separation_in_a_study_is_not_certain():
    recipe = read_recipe("digits").model_copy(
        update={"probes": Probes(ood={"source": "x"}), "corrupted_labels": (0.0,)}
    )
    keys = [one.key for one in measures_of(recipe.probes)]
    values = {key: np.full(120, float("AUROC" in key)) for key in keys}
    values |= {smaller_of(key): np.zeros(60) for key in keys}
    probed = {Trial("erm", 0.0, seed, 0): Probed(values, []) for seed in range(3)}
    for one in probe_rows(recipe, probed, ratio=0.2):
        (row,) = one["rows"]
        assert row["high"] - row["low"] == pytest.approx(100 * 3 / 60)
