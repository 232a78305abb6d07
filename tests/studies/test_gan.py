import json
import math
import re
import shutil
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch
from scipy import stats

import vicinal
from vicinal.errors import UserError
from vicinal.generative import toy
from vicinal.reports.gan_report import gan_answer, gan_notes
from vicinal.studies import gan
from vicinal.studies.gan import GanResult, GanStudy, GanTrial, Point
from vicinal.studies.gan_summary import summarize_gans
from vicinal.training.environment import versions
from vicinal.training.gan_recipe import GanRecipe, read_gan_recipe
from vicinal.training.recipe_changes import Changes

pytestmark = pytest.mark.usefixtures("without_figures")

TINY = ("iterations=4", "width=4", "batch_size=8", "discriminator_steps=1", "processes=1")
SETTINGS = [f"gan.{one}" for one in TINY]


def study(out, *settings, **more):
    more = {"variant": "stand-in", "quiet": True, "seeds": 2} | more
    return vicinal.study("paper-gan", settings=[*SETTINGS, *settings], out=out, **more)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return study(tmp_path_factory.mktemp("gan"))


def test_a_tiny_study_writes_a_page_a_table_and_a_summary(done):
    summary = json.loads((done.folder / "summary.json").read_bytes())
    assert summary == json.loads(json.dumps(done.summary))
    assert [(row["data"], row["arm"], row["n"]) for row in done.rows] == [
        (data, arm, 2) for data in ("grid", "ring") for arm in ("plain", "paper", "author")
    ]
    page = (done.folder / "report.html").read_text("utf-8")
    assert page.count("<svg ") == 10
    assert gan_answer(summary).partition(",")[0] in page
    assert "Samples over the iterations" in page
    table = (done.folder / "table.md").read_text("utf-8")
    assert "| ring | mixup (author's code) |" in table
    assert "| grid | real samples | 25.0 | " in table
    assert len(list((done.folder / "figures").iterdir())) == 10
    assert done.winner is None
    assert "compared with plain" in done._repr_html_()


def test_figures_name_their_axes(done):
    svg = (done.folder / "figures/energy-ring.svg").read_text("utf-8")
    assert "iteration of the generator" in svg
    assert "energy distance" in svg
    assert "x₁" in (done.folder / "figures/samples-ring.svg").read_text("utf-8")


def test_finished_trials_are_kept_and_more_seeds_are_added(done, monkeypatch):
    files = {path: path.read_bytes() for path in done.folder.glob("trials/*/result.json")}
    assert len(files) == 12
    ran, sentences = [], []
    run = gan.run_gan_trial
    monkeypatch.setattr(gan, "run_gan_trial", lambda *a: ran.append(a[0]) or run(*a))

    def resume(seeds):
        changes = Changes(seeds=seeds, settings=SETTINGS)
        recipe = read_gan_recipe("paper-gan", variant="stand-in", changes=changes)
        with gan.open_gan_study(recipe, done.folder) as opened:
            gan.run_gan_study(opened, sentences.append)

    resume(2)
    assert (ran, sentences) == ([], [])
    first = next(iter(files))
    first.unlink()
    resume(2)
    assert len(ran) == 1
    assert sentences[0] == "resuming: 11 of 12 trials are finished"
    again, before = (json.loads(text) for text in (first.read_bytes(), files[first]))
    assert again | {"seconds": 0} == before | {"seconds": 0}
    assert all(path.read_bytes() == text for path, text in files.items() if path != first)
    resume(3)
    assert len(ran) == 1 + 6
    assert {trial.seed for trial in ran[1:]} == {2}


def test_comments_in_the_recipe_of_a_folder_stay(tmp_path):
    few = ('gan.data=["ring"]', 'gan.arms=["plain"]')
    study(tmp_path, *few, seeds=1)
    path = tmp_path / "recipe.toml"
    path.write_text("# mine\n" + path.read_text("utf-8"), "utf-8")
    study(tmp_path, *few, seeds=1)
    assert path.read_text("utf-8").startswith("# mine\n")


def test_a_finished_study_is_shown_with_other_packages_and_an_unfinished_one_is_not(
    done, tmp_path, monkeypatch
):
    folder = tmp_path / "copy"
    shutil.copytree(done.folder, folder)
    for path in folder.glob("trials/*/result.json"):
        result = json.loads(path.read_text("utf-8"))
        result["versions"]["numpy"] = "1.0"
        path.write_text(json.dumps(result), "utf-8")
    assert study(folder).summary["versions"]["numpy"] == "1.0"
    path.unlink()
    before = (folder / "recipe.toml").read_bytes()
    with pytest.raises(UserError, match=r"other packages.*versions\.numpy was '1\.0' and is"):
        study(folder)
    assert (folder / "recipe.toml").read_bytes() == before
    shutil.copy(done.folder / path.relative_to(folder), path)  # of the packages of now
    with pytest.raises(UserError, match=r"other packages than other trials.*numpy was"):
        study(folder)


def test_other_settings_are_an_error_that_names_them(done):
    before = (done.folder / "recipe.toml").read_bytes()
    with pytest.raises(UserError, match=r"gan\.width was 4 and is 5"):
        study(done.folder, "gan.width=5")
    assert (done.folder / "recipe.toml").read_bytes() == before


def test_a_damaged_result_is_an_error_that_names_the_file(tmp_path):
    study(tmp_path, 'gan.data=["ring"]', 'gan.arms=["plain"]', seeds=1)
    path = tmp_path / "trials/ring-plain-seed0/result.json"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"result.json: expected the result of a trial, got"):
        study(tmp_path, 'gan.data=["ring"]', 'gan.arms=["plain"]', seeds=1)


def test_a_folder_of_something_else_is_an_error(tmp_path, small_recipe):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="expected a study or an empty folder"):
        study(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/recipe.toml").write_text(small_recipe().read_text())
    with pytest.raises(UserError, match="holds another study"):
        study(tmp_path / "b")


def test_the_samples_of_the_published_study_are_those_of_the_papers_iterations():
    assert gan.shown_iterations(20_000) == [10, 100, 1000, 10_000, 20_000]
    published = read_gan_recipe("paper-gan").gan
    assert (published.width, published.batch_size, published.discriminator_steps) == (512, 128, 5)
    assert (published.latent, published.alpha, published.iterations) == (2, 0.2, 20_000)


def settings(**changes):
    table = {"iterations": 10, "data": ["ring"], "arms": ["plain", "paper"]} | changes
    return GanRecipe.model_validate({"name": "made-up", "seeds": 3, "gan": table})


def made_up(folder, values, recipe=None, last=10):
    """Write results with these energy distances, and numbers of modes, by arm and seed."""
    opened = GanStudy(recipe or settings(), folder)
    for arm, seeds in values.items():
        for seed, (energy, modes) in enumerate(seeds):
            point = Point(iteration=last, modes=modes or 0, good=modes or 0, energy=energy or 0)
            result = GanResult(
                data="ring",
                arm=arm,
                seed=seed,
                settings=gan.settings_of_trials(opened.recipe.gan),
                versions=versions(),
                points=[] if energy is None else [point],
                samples={},
                diverged="not finite at iteration 1" if energy is None else "",
                seconds=1.0,
            )
            path = opened.path(GanTrial("ring", arm, seed))
            path.parent.mkdir(parents=True)
            path.write_text(result.model_dump_json())
    return opened


def test_the_interval_and_p_value_are_those_of_students_t_over_seeds(tmp_path):
    plain, paper = [0.5, 0.6, 0.9], [0.3, 0.2, 0.4]
    both = {"plain": [(x, 5) for x in plain], "paper": [(x, 5) for x in paper]}
    _, row = summarize_gans(made_up(tmp_path, both))["rows"]
    energy = row["measures"]["energy"]
    logs = np.log(paper)
    expected = np.exp(stats.t.interval(0.95, 2, np.mean(logs), stats.sem(logs)))
    assert energy["value"] == pytest.approx((0.3 * 0.2 * 0.4) ** (1 / 3))
    assert [energy["low"], energy["high"]] == pytest.approx(expected)
    paired = stats.ttest_rel(logs, np.log(plain))
    interval = paired.confidence_interval()
    found = energy["difference"]
    assert [found["low"], found["high"]] == pytest.approx(np.exp(interval))
    # Holm: the smallest of three p-values is multiplied by three.
    assert energy["p"] == pytest.approx(min(3 * paired.pvalue, 1))


def test_a_smaller_energy_distance_and_more_modes_are_better(tmp_path):
    both = {
        "plain": [(0.9, 1), (0.91, 2), (0.92, 1)],
        "paper": [(0.1, 8), (0.11, 8), (0.13, 8)],
    }
    summary = summarize_gans(made_up(tmp_path, both))
    measures = summary["rows"][1]["measures"]
    assert {name: one["verdict"] for name, one in measures.items()} == {
        "modes": "better",
        "good": "better",
        "energy": "better",
    }
    assert "better in modes found (ring), good samples (ring), energy distance (ring)" in (
        gan_answer(summary)
    )


def test_seeds_that_all_agree_do_not_make_a_difference_of_one_mode_certain(tmp_path):
    both = {"plain": [(0.5, 7)] * 2, "paper": [(0.5, 8)] * 2}
    summary = summarize_gans(made_up(tmp_path, both))
    modes = summary["rows"][1]["measures"]["modes"]
    assert modes["difference"]["low"] < 0 < modes["difference"]["mean"] == 1
    assert modes["verdict"] == "no evidence"


def test_one_seed_gives_no_verdict(tmp_path):
    summary = summarize_gans(made_up(tmp_path, {"plain": [(0.5, 4)], "paper": [(0.1, 8)]}))
    verdicts = {one["verdict"] for one in summary["rows"][1]["measures"].values()}
    assert verdicts == {"withheld"}
    assert gan_notes(summary | {"seeds": 1})[0].startswith("Measured with one seed")
    assert ", as one seed gives no interval" in gan_answer(summary | {"seeds": 1})


def test_a_run_that_is_not_finite_is_counted_and_withholds_the_verdict(tmp_path):
    both = {"plain": [(0.5, 4), (0.6, 4), (0.7, 4)], "paper": [(0.1, 8), (None, None), (0.2, 8)]}
    summary = summarize_gans(made_up(tmp_path, both))
    row = summary["rows"][1]
    assert row["diverged"] == {"seed 1": "not finite at iteration 1"}
    assert row["measures"]["modes"]["seeds"] == [8, 0, 8]
    assert row["measures"]["modes"]["value"] == pytest.approx(16 / 3)
    energy = row["measures"]["energy"]
    assert energy["value"] == pytest.approx(math.sqrt(0.1 * 0.2))
    assert (energy["low"], energy["difference"], energy["verdict"]) == (None, None, "withheld")
    assert "1 of 6 GANs diverged: 1 of mixup (paper)." in gan_answer(summary)
    assert json.loads(json.dumps(summary, allow_nan=False)) is not None


class Broken(torch.nn.Linear):
    def forward(self, rows):
        return super().forward(rows) / 0


def test_a_gan_whose_samples_are_not_finite_is_stopped_counted_and_shown(tmp_path, monkeypatch):
    monkeypatch.undo()  # the figures say so too
    monkeypatch.setattr(toy, "network", lambda i, _w, o, _g: Broken(i, o))
    found = study(tmp_path, 'gan.data=["ring"]', 'gan.arms=["plain", "paper"]', seeds=1)
    result = json.loads((tmp_path / "trials/ring-paper-seed0/result.json").read_bytes())
    assert result["diverged"] == "not finite at iteration 1"
    assert result["points"] == []
    assert "2 of 2 GANs diverged" in gan_answer(found.summary)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Diverged: mixup (paper), ring, seed 0: not finite at iteration 1." in page
    assert page.count(">not finite<") > 3


class Constant(torch.nn.Linear):
    def forward(self, rows):
        return super().forward(0 * rows)


def test_a_gan_that_collapses_to_a_point_is_counted_and_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "network", lambda i, _w, o, _g: Constant(i, o))
    found = study(tmp_path, 'gan.data=["ring"]', 'gan.arms=["plain"]', seeds=1)
    row = found.rows[0]
    assert row["diverged"] == {"seed 0": "one point"}
    assert math.isfinite(row["measures"]["energy"]["value"])


def test_the_command_prints_the_tables_and_the_page(vicinal, tmp_path):
    words = ["study", "paper-gan", "--variant", "stand-in", "--seeds", 1, "--out", tmp_path]
    for setting in (*SETTINGS, 'gan.data=["ring"]', 'gan.arms=["plain", "paper"]'):
        words += ["--set", setting]
    done = vicinal(*words)
    assert done.exit_code == 0, done.output
    assert "mixup (paper)" in done.stdout
    assert re.search(r"\w+ of 2 GANs diverged", " ".join(done.stdout.split()))
    assert "[2/2] ring, paper, seed 0: modes found" in done.stderr
    again = vicinal(*words, "--json")
    assert json.loads(again.stdout)["study"] == "paper-gan-stand-in"


def test_it_is_shown_with_its_cost(vicinal, tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text('name = "own"\n[gan]\nwidth = 4\niterations = 30\nbatch_size = 8\n')
    done = vicinal("study", recipe, "--show")
    assert done.exit_code == 0, done.output
    assert "width = 4" in done.stdout
    assert re.search(r"cost: about 0:\d\d:\d\d in all", done.stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("study", "paper-gan", "--epochs", 3), "--epochs: expected a recipe for classifiers"),
        (("study", "paper-gan", "--arms", "erm"), "--arms: expected a recipe for classifiers"),
        (("study", "paper-gan", "--minutes", 3), "--minutes: expected a data set"),
        (("study", "paper-gan", "--set", "gan.wdith=3"), "gan.wdith: there is no field"),
        (("study", "paper-gan", "--set", "gan.data=[]"), "gan.data"),
        (("study", "paper-gan", "--set", "gan.generator_loss=wgan"), "gan.generator_loss"),
        (("study", "paper-gan", "--variant", "short"), "It has: stand-in"),
        (("study", "paper-gan", "--seeds", 0), "seeds: expected a number"),
        (
            ("train", "paper-gan", "--arm", "paper", "--out", "x"),
            "the recipe paper-gan: expected a task with labels, got GANs",
        ),
    ],
)
def test_what_a_study_of_gans_has_not_is_an_error_of_one_sentence(
    words, message, vicinal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = vicinal(*words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_report_command_names_the_way_out(done, vicinal):
    redrawn = vicinal("report", done.folder)
    assert redrawn.exit_code == 2
    assert "draws their report each time" in " ".join(redrawn.stderr.split())


@pytest.mark.parametrize(("arm", "mixed"), [("plain", False), ("author", False), ("paper", True)])
def test_the_generator_is_trained_on_blends_in_the_arm_of_the_paper_only(arm, mixed, monkeypatch):
    plans, loss = [], toy.minimax_generator_loss
    monkeypatch.setattr(toy, "minimax_generator_loss", lambda *a: plans.append(a[3]) or loss(*a))
    list(toy.train("ring", arm, 0, iterations=2, yield_at=[], width=4))
    assert [plan is not None for plan in plans] == [mixed, mixed]
    assert not mixed or not torch.equal(plans[0].lam, plans[1].lam)


def test_changes_set_the_fields_of_the_table():
    recipe = read_gan_recipe("paper-gan", changes=Changes(seeds=9, settings=["gan.alpha=1.0"]))
    assert (recipe.seeds, recipe.gan.alpha) == (9, 1.0)


def test_an_infinite_alpha_is_refused_before_training():
    with pytest.raises(UserError, match=r"gan\.alpha: expected a finite number"):
        read_gan_recipe("paper-gan", changes=Changes(settings=["gan.alpha=inf"]))


def test_settings_of_the_program_do_not_change_gans(done, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        other = study(tmp_path / "gan")
    finally:
        torch.set_default_dtype(torch.float32)
    assert [row["measures"] for row in other.rows] == [row["measures"] for row in done.rows]


def test_a_killed_process_is_named():
    with (
        pytest.raises(UserError, match="a process that trained was killed"),
        gan.killed_processes_named(),
    ):
        raise BrokenProcessPool("a worker was killed")
