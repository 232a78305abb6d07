import contextlib
import io
import json
import re
import resource
import signal
import sys
from pathlib import Path

import pytest

from vicinal import __version__
from vicinal.cli import main
from vicinal.studies.budget import Cost
from vicinal.training.recipe import read_recipe, resolved_text, shipped

FILES = ["report.html", "summary.json", "table.csv", "table.md"]


def without_seconds(text):
    summary = json.loads(text)
    for row in summary["rows"]:
        assert 0 < row.pop("seconds") <= row.pop("all_seconds")
        assert row.pop("peak_memory") > 1e6
    return json.dumps(summary)


def wait_for_line(process, text):
    """Read the stderr of a process until a line contains some text, while the process runs."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return
    pytest.fail(f"expected a line with {text!r}, got {lines}")


def test_a_study_prints_the_answer_and_writes_the_report(finished_study, vicinal):
    done = vicinal("study", finished_study / "recipe.toml", "--out", finished_study)
    assert done.exit_code == 0
    assert "40% corrupted" in done.stdout
    assert "ERM" in done.stdout
    assert done.stdout.endswith(f"report: {finished_study / 'report.html'}\n")
    for name in FILES:
        assert (finished_study / name).stat().st_size > 0
    assert (finished_study / "trials" / "mixup-40-corrupted-seed1" / "metrics.csv").exists()


def test_the_table_fits_into_80_columns(finished_study, vicinal):
    done = vicinal("study", finished_study / "recipe.toml", "--out", finished_study)
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    row = next(line for line in done.stdout.splitlines() if line.strip().startswith("input mixup"))
    last = row.split()[-1]  # the wrong labels that were learned, or seconds if there is room
    assert last == "—" or last.replace(".", "").isdigit()


def test_json_is_the_summary_and_nothing_else(finished_study, vicinal):
    done = vicinal("study", finished_study / "recipe.toml", "--out", finished_study, "--json")
    assert done.stdout == (finished_study / "summary.json").read_text()
    rows = json.loads(done.stdout)["rows"]
    assert {row["condition"] for row in rows} == {"true labels", "40% corrupted"}
    assert {row["arm"] for row in rows} == {"erm", "mixup", "mixup-features"}


def test_one_seed_gives_no_verdict_and_the_default_folder_has_the_name_of_the_study(
    small_recipe, tmp_path, vicinal, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    recipe = small_recipe({"name": "tiny", "corrupted_labels": [0.4]})
    done = vicinal("study", recipe, "--seeds", 1, "--epochs", 1, "--json")
    assert done.exit_code == 0
    assert Path("runs/tiny/report.html").exists()
    row = json.loads(done.stdout)["rows"][1]
    metric = row["metrics"]["accuracy"]
    assert (row["n"], metric["low"], metric["difference"]["low"]) == (1, None, None)
    assert (row["verdict"], row["withheld"]) == ("withheld", "one seed gives no interval")
    assert "Infinity" not in done.stdout


@pytest.mark.usefixtures("without_figures")
def test_a_killed_study_resumes_to_the_summary_of_an_unbroken_one(
    finished_study, tmp_path, start, vicinal
):
    recipe, out = finished_study / "recipe.toml", tmp_path / "killed"
    process = start("study", recipe, "--out", out)
    wait_for_line(process, "[3/12]")
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.read_text() for path in out.glob("trials/*/result.json")}
    assert 3 <= len(kept) < 12
    done = vicinal("study", recipe, "--out", out)
    assert done.exit_code == 0, done.output
    assert f"resuming: {len(kept)} of 12 trials are finished" in done.stderr
    assert all(path.read_text() == text for path, text in kept.items())
    unbroken = (finished_study / "summary.json").read_text()
    assert without_seconds((out / "summary.json").read_text()) == without_seconds(unbroken)


def test_ctrl_c_pressed_three_times_stops_with_a_sentence_and_130(finished_study, tmp_path, start):
    process = start("study", finished_study / "recipe.toml", "--out", tmp_path / "stopped")
    wait_for_line(process, "[1/12]")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
    rest = process.communicate()[1]
    assert process.returncode == 130
    assert "vicinal: stopped" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["digit"], "there is no recipe, data set or path 'digit'. Did you mean 'digits'?"),
        (["no/where.toml"], "no/where.toml: there is no such recipe file"),
        (
            ["digits", "--epochs", "0"],
            "training.epochs: expected a number greater than or equal to 1",
        ),
        (["digits", "--seeds", "0"], "seeds: expected a number greater than or equal to 1, got 0"),
        (["digits", "--out", "/proc/nothing"], "/proc/nothing: the folder cannot be written"),
        (["digits", "--out", "/dev/null"], "/dev/null: the folder cannot be written"),
        (["digits", "--epochs", "some"], "Invalid value for '--epochs'"),
        (["digits", "--sedes", "3"], "No such option: --sedes"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, sentence, vicinal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = vicinal("study", *words)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_different_study_is_an_error_and_stays_unchanged(finished_study, vicinal):
    before = {path: path.stat().st_mtime_ns for path in finished_study.rglob("*")}
    recipe = finished_study / "recipe.toml"
    done = vicinal("study", recipe, "--epochs", 3, "--out", finished_study)
    assert done.exit_code == 2
    assert "training.epochs was 2 and is 3" in done.stderr
    after = {path: path.stat().st_mtime_ns for path in finished_study.rglob("*")}
    assert {p: t for p, t in after.items() if p.name != ".lock"} == {
        p: t for p, t in before.items() if p.name != ".lock"
    }


def test_a_missing_device_is_named(small_recipe, tmp_path, vicinal):
    recipe = small_recipe({"training.accelerator": "mps"})
    done = vicinal("study", recipe, "--out", tmp_path / "o")
    assert done.exit_code == 2
    assert 'training.accelerator: "mps" is not available' in done.stderr


@contextlib.contextmanager
def files_up_to(size):
    """Let this process write no larger files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing_that_is_finished(copied_study, vicinal):
    # The page is larger than 50 kB, everything that is written before it is smaller.
    for name in FILES:
        (copied_study / name).unlink()
    recipe = copied_study / "recipe.toml"
    with files_up_to(50_000):
        done = vicinal("study", recipe, "--out", copied_study)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    page = copied_study / "report.html"
    assert f"vicinal: {page} cannot be written: File too large" in done.stderr
    assert not (copied_study / "summary.json").exists()
    done = vicinal("study", recipe, "--out", copied_study)
    assert done.exit_code == 0
    assert "[" not in done.stderr
    assert (copied_study / "report.html").exists()


def test_a_disk_too_small_for_the_state_of_a_trial_is_named(finished_study, tmp_path, vicinal):
    with files_up_to(20_000):
        done = vicinal("study", finished_study / "recipe.toml", "--out", tmp_path / "o")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 2
    assert "12 trials to train, each for 2 epochs" in done.stderr
    assert "state.safetensors cannot be written: File too large" in done.stderr


def test_a_reader_that_closes_the_pipe_is_no_error(finished_study, start):
    # Nobody reads even the first character.
    process = start("study", finished_study / "recipe.toml", "--out", finished_study, "--json")
    process.stdout.close()
    process.stdout = None
    said = process.communicate()[1]
    assert "Traceback" not in said
    assert "Exception" not in said


def test_debug_shows_the_traceback(vicinal):
    done = vicinal("study", "digit", "--debug")
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "vicinal.errors.UserError: there is no recipe, data set or path 'digit'" in done.stderr


def test_a_traceback_holds_no_escape_sequences(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vicinal", "study", "digit\x1b[31m\nnone.toml", "--debug"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "Traceback (most recent call last)" in said
    assert r"digit\x1b[31m" in said
    assert "\x1b" not in said


def test_help_has_an_example(vicinal):
    done = vicinal("study", "--help")
    assert done.exit_code == 0
    assert "Example: vicinal study folder:flowers" in done.stdout


def test_the_recipe_of_a_data_set_is_shown_by_init(vicinal):
    done = vicinal("study", "folder:flowers", "--show")
    assert done.exit_code == 2
    assert "expected a recipe, got 'folder:flowers'. vicinal init prints" in done.stderr


def test_show_draws_a_figure_and_reports_its_file(tmp_path, vicinal):
    figure = tmp_path / "mixed.svg"
    done = vicinal("show", "--policy", "mixup", "--size", 3, "--out", figure)
    assert done.stdout == f"figure: {figure}\n"
    assert figure.read_text().startswith("<?xml")
    done = vicinal("show", "--policy", "mixup", "--size", 3, "--out", figure, "--json")
    (row,) = json.loads(done.stdout)["rows"]
    assert len(row["lam"]) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "--policy", "cutmx"), "Did you mean 'cutmix'"),
        (("show", "--out", "picture.jpg"), ".svg"),
        (("show", "--alpha", "-1"), "alpha"),
    ],
)
def test_errors_of_show_are_one_sentence(words, sentence, vicinal, tmp_path):
    done = vicinal(*words)
    assert done.exit_code == 2
    assert done.stderr.startswith("vicinal: ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr


@pytest.mark.parametrize("size", [1, 17])
def test_an_error_names_the_size_of_a_figure_that_is_too_small_or_large(size, vicinal):
    done = vicinal("show", "--size", size)
    assert done.exit_code == 2
    assert "Invalid value for '--size'" in done.stderr


def test_a_terminal_that_is_not_utf_8_gets_readable_text(copied_study, small_recipe, monkeypatch):
    recipe = small_recipe({"arms.mixup.title": "mixup, α → ∞ … 猫"})
    (copied_study / "recipe.toml").write_text(resolved_text(read_recipe(str(recipe))), "utf-8")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "argv", ["vicinal", "study", str(recipe), "--out", str(copied_study)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    terminal.flush()
    shown = terminal.buffer.getvalue().decode("ascii")
    assert "baseline" in shown
    assert f"report: {copied_study}" in shown
    assert r"mixup, \u03b1 \u2192 \u221e \u2026 \u732b" in " ".join(shown.split())


def test_the_version_is_printed(vicinal):
    assert vicinal("--version").stdout == f"vicinal {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("train", "digits", "--arm", "erm", "--out", "o"),
        ("score", "checkpoint.safetensors", "--data", "digits"),
        ("show",),
        ("data", "info", "digits"),
        ("data", "convert", "digits", "d.npz"),
    ],
)
@pytest.mark.parametrize("seed", [-1, 1 << 32, 1 << 64, 10**4000])
def test_an_error_names_the_option_of_a_bad_seed(words, seed, vicinal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = vicinal(*words, "--seed", seed)
    assert done.exit_code == 2
    assert "Invalid value for '--seed'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_recipes_are_listed_with_what_they_are_about(vicinal):
    done = vicinal("study", "--list")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[: len(shipped())]] == shipped()
    assert "Does mixup help a small network to classify handwritten digits" in done.stdout
    listed = json.loads(vicinal("study", "--list", "--json").stdout)
    assert list(listed) == shipped()
    assert listed["digits"].startswith("Does mixup help a small network to classify")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["study", "digits", "--show", "--json"], "--json has no meaning with --show"),
        (["study", "digits", "--show", "--minutes", 3], "--minutes has no meaning with --show"),
        (["study", "claims", "--show"], "--show: expected a recipe, got claims"),
        (["predict", "x", "a.png", "--split", "train"], "--root and --split are for --data"),
    ],
)
def test_options_without_a_meaning_are_not_ignored(vicinal, words, sentence):
    done = vicinal(*words)
    assert done.exit_code == 2
    assert sentence in " ".join(done.stderr.split())


def test_a_recipe_is_shown_with_its_published_rows_and_its_cost(vicinal, tmp_path, monkeypatch):
    monkeypatch.setenv("VICINAL_DATA", str(tmp_path))
    done = vicinal("study", "digits", "--show")
    assert done.exit_code == 0, done.output
    assert 'name = "small-cnn"' in done.stdout
    assert re.search(r"cost: about \S+ s an epoch, 0:\d\d:\d\d in all", done.stdout)
    done = vicinal("study", "cifar10-resnet50", "--show")
    assert "published: ERM, 300 epochs: 89.32%" in done.stdout
    assert "cost: unknown without the data (" in done.stdout


def test_init_prints_a_recipe_that_a_study_accepts(vicinal, tmp_path):
    done = vicinal("init", "iris", "--seeds", 1, "--epochs", 2, "--arms", "erm,mixup,manifold")
    assert done.exit_code == 0, done.output
    recipe = tmp_path / "iris.toml"
    recipe.write_text(done.stdout)
    settings = read_recipe(str(recipe))
    assert (settings.seeds, list(settings.arms)) == (1, ["erm", "mixup", "manifold"])


def test_the_schema_of_recipes_describes_arms_and_training(vicinal):
    schema = json.loads(vicinal("init", "--schema").stdout)
    assert {"arms", "data", "model", "training", "metrics"} <= set(schema["properties"])
    assert "CutMixArm" in schema["$defs"]


def test_init_needs_a_data_set(vicinal):
    done = vicinal("init")
    assert done.exit_code == 2
    assert "WHAT: expected a data set" in done.stderr


def test_show_estimates_the_cost_of_the_study_that_is_asked_for(vicinal, monkeypatch):
    asked = []

    def cost_of(recipe, data):
        asked.append(recipe)
        return Cost(2.0, 120.0)

    monkeypatch.setattr("vicinal.studies.budget.cost_of", cost_of)
    done = vicinal("study", "digits", "--show", "--seeds", 30, "--epochs", 300, "--arms", "erm")
    (recipe,) = asked
    assert (recipe.seeds, recipe.training.epochs, list(recipe.arms)) == (30, 300, ["erm"])
    expected = "cost: about 2 s an epoch, 0:02:00 in all, on this machine"
    assert done.stdout.splitlines()[-1] == f"{expected}, with these options"
    assert vicinal("study", "digits", "--show").stdout.splitlines()[-1] == expected
