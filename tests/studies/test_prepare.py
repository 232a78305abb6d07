import json
import math
import re
import shutil
import tomllib

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import vicinal as package
from vicinal.errors import UserError
from vicinal.studies import open_study
from vicinal.studies.prepare import prepare, source_of
from vicinal.training.evaluation_data import load_as_trained
from vicinal.training.recipe import read_recipe, resolved_text
from vicinal.training.recipe_changes import Changes
from vicinal.training.score import score_network

pytestmark = pytest.mark.usefixtures("without_figures")

FEW = Changes(seeds=2, epochs=2)


def scored(trial, split="test"):
    network = package.load(trial)
    data = load_as_trained(network.path, network.info, split=split)
    return score_network(network, data, split=split)


@pytest.fixture
def cars(tmp_path):
    """Return the path of a table with numbers, categories, missing cells and a price."""
    generator = np.random.default_rng(0)
    lines = ["make,age,price"]
    for row in range(60):
        age = generator.integers(0, 20)
        price = 30_000 * math.exp(-0.1 * age) + generator.normal() * 500
        lines.append(f"{('vw', 'bmw', '')[row % 3]},{age if row % 7 else ''},{price:.0f}")
    path = tmp_path / "Cars.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_path_becomes_a_study_that_resumes_with_the_recipe_in_its_folder(cars, tmp_path):
    told = []
    first = prepare(str(cars), changes=FEW, out=tmp_path / "out", log=told.append)
    assert first.recipe.name == "cars"
    assert first.recipe.data.source == f"table:{cars}?label=price"
    assert any("guessed the last column, 'price'" in sentence for sentence in told)
    (tmp_path / "out").mkdir()
    edited = first.text.replace("batch_size = 12", "batch_size = 6")
    assert edited != first.text
    (tmp_path / "out" / "recipe.toml").write_text(edited)
    again = prepare(str(cars), changes=Changes(seeds=3), out=tmp_path / "out")
    assert (again.recipe.seeds, again.recipe.training.batch_size) == (3, 6)
    assert "# the arm that the others are compared with" in again.text


def test_small_data_are_tested_in_folds_if_the_time_allows(cars, tmp_path):
    told = []
    found = prepare(str(cars), changes=FEW, out=tmp_path / "out", log=told.append)
    assert found.recipe.splits == 5
    assert "splits = 5                      # folds: one test split would be small" in found.text
    assert "fewer than 1,000 examples: 5 folds, each of which is the test split once" in told
    assert (len(found.data.train), len(found.data.test)) == (48, 12)
    one = Changes(seeds=2, epochs=2, settings=["splits=1"])
    assert prepare(str(cars), changes=one, out=tmp_path / "out").recipe.splits == 1
    cut = prepare(str(cars), changes=Changes(seeds=2), minutes=0.01, out=tmp_path / "out").recipe
    assert cut.training.epochs < 30
    assert cut.shortened.epochs > cut.training.epochs
    assert cut.training.checkpoint_every == max(1, cut.training.epochs // 4)
    hasty = Changes(seeds=2, epochs=10_000)
    told.clear()
    short = prepare(str(cars), changes=hasty, minutes=0.05, out=tmp_path / "out", log=told.append)
    assert short.recipe.splits == 1
    assert any(
        one.startswith("fewer than 1,000 examples: 5 folds with all epochs would take --minutes ")
        and one.endswith(", so there are only 12 test examples")
        for one in told
    )


def array_file(path, targets):
    x = np.random.default_rng(0).random((len(targets), 3), np.float32)
    np.savez(path, x=x, y=np.asarray(targets))
    return str(path)


def test_a_rare_class_is_tested_in_folds_if_the_time_allows(tmp_path):
    path = array_file(tmp_path / "rare.npz", np.arange(1200) % 15 // 14)  # 80 are 1
    told = []
    found = prepare(path, changes=FEW, out=tmp_path / "out", log=told.append)
    assert found.recipe.splits == 5
    assert "fewer than 100 examples of '1': 5 folds, each of which is the test split once" in told
    told.clear()
    hasty = Changes(seeds=2, epochs=10_000)
    short = prepare(path, changes=hasty, minutes=0.05, out=tmp_path / "out", log=told.append)
    assert short.recipe.splits == 1
    (sentence,) = (one for one in told if "5 folds" in one)
    assert sentence.endswith("so there are only 240 test examples, 16 of them of '1'")
    whole = short.recipe.shortened
    assert (whole.minutes, whole.seeds, whole.epochs, whole.splits) == (0.05, 2, 10_000, 5)


def test_groups_are_tested_in_folds_although_the_minutes_are_few(tmp_path):
    path = tmp_path / "groups.csv"
    lines = [f"{k % 7 + 5 * (k % 2)},{k // 4},{'ab'[k % 2]}" for k in range(1200)]
    path.write_text("\n".join(["x,who,y", *lines]))
    source, told = f"{path}?label=y&group=who", []
    hasty = Changes(seeds=3, epochs=10_000)
    found = prepare(source, changes=hasty, minutes=0.05, out=tmp_path / "a", log=told.append)
    assert found.recipe.splits == 5
    begin = "rows that belong together: 5 folds, each of which is the test split once"
    assert begin in told, told


def test_classes_that_folds_cannot_help_leave_one_split(tmp_path):
    rows = np.arange(1200)
    few = np.where(rows < 4, 2, rows % 2)
    told = []
    path = array_file(tmp_path / "four.npz", few)
    assert prepare(path, changes=FEW, out=tmp_path / "a", log=told.append).recipe.splits == 1
    begin = "fewer than 100 examples of '2', but there is one test split: 5 folds cannot split"
    assert any(one.startswith(begin) for one in told), told
    none = array_file(tmp_path / "none.npz", rows % 2 * 2)  # no example of class 1
    assert prepare(none, changes=FEW, out=tmp_path / "b").recipe.splits == 1
    table = tmp_path / "groups.csv"  # class c is in one of 60 groups
    lines = [f"{k % 7},{k // 20},{'c' if k < 20 else 'ab'[k % 2]}" for k in rows]
    table.write_text("\n".join(["x,who,y", *lines]))
    grouped = f"{table}?label=y&group=who"
    assert prepare(grouped, changes=FEW, out=tmp_path / "c").recipe.splits == 1
    told.clear()
    small = tmp_path / "small.csv"
    small.write_text("\n".join(["x,who,y", *lines[:600]]))
    grouped = f"{small}?label=y&group=who"
    assert prepare(grouped, changes=FEW, out=tmp_path / "d", log=told.append).recipe.splits == 1
    begin = "rows that belong together, but there is one test split: 5 folds"
    assert any(one.startswith(begin) for one in told), told


def test_a_folder_of_other_data_is_refused(cars, tmp_path):
    first = prepare(str(cars), changes=FEW, out=tmp_path)
    (tmp_path / "recipe.toml").write_text(first.text)
    with pytest.raises(UserError, match=r"holds a study of .*, not of iris. Correct the source"):
        prepare("iris", changes=FEW, out=tmp_path)
    with pytest.raises(UserError, match=r"no table option 'lable'.*Did you mean 'label'"):
        prepare(f"{cars}?lable=price", changes=FEW, out=tmp_path)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        (
            "iris",
            {"changes": Changes(settings=["data.test_fraction=2"])},
            "data.test_fraction: expected",
        ),
        ("iris", {"changes": Changes(settings=["task=regression"])}, "task: expected"),
        ("nothing-here", {}, "there is no recipe, data set or path 'nothing-here'"),
        (
            "folder:nothing",
            {},
            "there is no folder of images nothing in the working directory or in",
        ),
        ("table:nothing.csv", {}, "there is no .*nothing.csv in the working directory or in"),
    ],
)
def test_what_does_not_fit_is_one_sentence(what, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        prepare(what, out=tmp_path / "new", **{"changes": FEW} | options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (Changes(model="smal-cnn"), "there is no network 'smal-cnn'. Did you mean 'small-cnn'"),
        (Changes(arms=["manifold", "mixpu"]), "there is no arm 'mixpu'. Did you mean 'mixup'"),
        (
            Changes(metric="acuracy"),
            "--metric: there is no metric 'acuracy'. Did you mean 'accuracy'",
        ),
        (Changes(settings=["training.epochs=few"]), "training.epochs: expected"),
        (Changes(settings=["data.tets_fraction=0.1"]), "data.tets_fraction: there is no field"),
    ],
)
def test_invalid_changes_are_errors_before_the_data_are_read(
    changes, message, tmp_path, monkeypatch
):
    def read(*_, **__):
        raise AssertionError("the data are read")

    monkeypatch.setattr("vicinal.training.trial_setup.read_data", read)
    with pytest.raises(UserError, match=re.escape(message)):
        prepare("iris", changes=changes, out=tmp_path / "new")


@pytest.mark.parametrize(
    ("arms", "settings", "found"),
    [
        (["column-cutmix"], [], {"erm", "column-cutmix"}),
        (["mixup", "manifold"], ["baseline=mixup"], {"mixup", "manifold"}),
        (["manifold"], ["arms.manifold.alpha=0.5"], {"erm", "manifold"}),
        ([], ["arms.manifold.alpha=0.5", "baseline=manifold"], {"erm", "mixup", "manifold"}),
        ([], ["training.weight_decay=0.1", "training.optimizer.lr=0.1"], None),
    ],
)
def test_arms_and_settings_that_depend_on_the_data_are_valid_and_the_same_line_resumes(
    arms, settings, found, tmp_path
):
    changes = Changes(seeds=1, epochs=1, arms=arms, settings=settings)
    first = prepare("iris", changes=changes, out=tmp_path / "new")
    assert found is None or first.recipe.arms.keys() == found
    (tmp_path / "new").mkdir()
    (tmp_path / "new/recipe.toml").write_text(first.text)
    again = prepare("iris", changes=changes, out=tmp_path / "new")
    assert again.recipe == first.recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (Changes(arms=["erm", "cutmix"]), r"arms\.cutmix: \w+ shows the partner in a region"),
        (Changes(arms=["erm", "resizemix"]), r"arms\.resizemix: \w+ shows the partner in a region"),
        (Changes(arms=["erm", "fmix"]), r"arms\.fmix: \w+ shows the partner in a region"),
        (Changes(metric="rmse"), "metrics: expected a metric of classification"),
    ],
)
def test_arms_and_metrics_that_do_not_fit_the_data_are_errors_before_the_cost_is_measured(
    changes, message, tmp_path, monkeypatch
):
    def cost_of(*_):
        raise AssertionError("the cost is measured")

    monkeypatch.setattr("vicinal.studies.budget.cost_of", cost_of)
    with pytest.raises(UserError, match=message):
        prepare("iris", changes=changes, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_metric_is_checked_on_the_folds_and_not_on_the_split_before_them(tmp_path):
    lines = ["a,y", *(f"{row},{row if row % 8 == 0 else 0}" for row in range(1, 61))]
    (tmp_path / "rain.csv").write_text("\n".join(lines) + "\n")
    path = f"{tmp_path / 'rain.csv'}?label=y&task=regression"
    few = Changes(seeds=1, epochs=1, metric="r2")
    with pytest.raises(UserError, match="R² is undefined, since all targets of the test split are"):
        prepare(path, changes=few._replace(settings=["splits=1"]), out=tmp_path / "out")
    assert prepare(path, changes=few, minutes=60, out=tmp_path / "out").recipe.splits == 5


def test_what_settings_choose_is_not_cut_and_an_arm_keeps_its_own_epochs(cars, tmp_path):
    chosen = ["seeds=4", "training.epochs=40", "arms.mixup.training.epochs=7"]
    changes = Changes(settings=chosen)
    first = prepare(str(cars), changes=changes, minutes=0.01, out=tmp_path / "out")
    assert (first.recipe.seeds, first.recipe.training.epochs) == (4, 40)
    assert first.recipe.training_of("mixup").epochs == 7
    (tmp_path / "out").mkdir()
    (tmp_path / "out/recipe.toml").write_text(first.text)
    assert prepare(str(cars), changes=changes, out=tmp_path / "out").recipe == first.recipe


def test_a_class_that_groups_keep_out_of_some_folds_is_judged_over_all_folds(tmp_path):
    generator = np.random.default_rng(0)
    lines = ["u,patient,y"]
    for row in range(100):
        patient = row // 10
        label = "abc"[row % (3 if patient in (3, 7) else 2)]
        lines.append(f"{generator.normal() + 3 * 'abc'.index(label):.3f},p{patient},{label}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    done = package.study(
        f"{tmp_path / 'rows.csv'}?label=y&group=patient",
        arms=["erm", "mixup"],
        seeds=1,
        epochs=2,
        settings=["splits=5", "training.threads=1"],
        out=tmp_path / "out",
        quiet=True,
    )
    assert done.summary["verdict_problems"] == []
    assert done.summary["tested_of_each_class"][2] == 6
    assert min(done.summary["data"]["test"]["of_each_class"]) == 0
    outputs = [
        load_file(path / "outputs.safetensors")["last"].argmax(1)
        for path in sorted((tmp_path / "out/trials").glob("mixup*"))
    ]
    targets = [
        load_file(path / "outputs.safetensors")["targets"]
        for path in sorted((tmp_path / "out/trials").glob("mixup*"))
    ]
    shares = [
        float((found == 2)[true == 2].mean())
        for found, true in zip(outputs, targets, strict=True)
        if (true == 2).any()
    ]
    assert done.rows[1]["recall"][2]["value"] == pytest.approx(100 * np.mean(shares), abs=1e-3)


def test_a_multi_label_study_whose_last_fold_is_not_finished_has_a_report(tmp_path, vicinal):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(60, 5)).astype("float32")
    tags = (inputs[:, :3] > 0).astype("float32")
    np.savez(tmp_path / "tags.npz", train_inputs=inputs, train_labels=tags)
    package.study(
        f"npz:{tmp_path / 'tags.npz'}",
        arms=["erm", "mixup"],
        seeds=1,
        epochs=1,
        settings=["splits=3", "training.threads=1"],
        out=tmp_path / "out",
        quiet=True,
    )
    for path in (tmp_path / "out/trials").glob("*split2"):
        shutil.rmtree(path)
    done = vicinal("report", tmp_path / "out")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "out/summary.json").read_text())["rows"]
    assert "1 of 3 trials is not finished" in rows[1]["withheld"]
    assert len(rows[1]["labels"]["auroc"]) == 3


def test_images_of_floating_point_pixels_are_kept_the_right_way_up(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 0.2, (60, 1, 8, 8)).astype("float32")
    images[:, :, 0] += 1.0  # a bright first row
    np.savez(tmp_path / "lines.npz", train_inputs=images, train_labels=np.arange(60) % 2)
    package.study(
        f"npz:{tmp_path / 'lines.npz'}",
        arms=["erm", "mixup"],
        seeds=1,
        epochs=1,
        settings=["splits=1", "training.threads=1"],
        out=tmp_path / "out",
        quiet=True,
    )
    with np.load(tmp_path / "out/examples.npz") as kept:
        rows = kept["test_inputs"].mean((0, 1, 3))
    assert rows.argmax() == 0


def test_folds_of_one_example_give_no_verdict_and_say_why(cars, tmp_path):
    cars.write_text("\n".join(cars.read_text().splitlines()[:13]))  # 12 examples
    done = package.study(
        str(cars), seeds=1, epochs=1, settings=["splits=8"], out=tmp_path / "out", quiet=True
    )
    withheld = {row["withheld"] for row in done.rows if row["arm"] != "erm"}
    assert all("a split has fewer than two test examples" in one for one in withheld)


def test_the_share_of_training_examples_does_not_decide_about_folds(tmp_path):
    for share in (1.0, 0.1):
        changes = Changes(seeds=1, epochs=1, settings=[f"data.train_fraction={share}"])
        assert prepare("digits", changes=changes, out=tmp_path / "new").recipe.splits == 1


def test_layers_of_a_network_that_the_data_decide_are_not_checked_before_they_are_read(tmp_path):
    changes = Changes(seeds=1, epochs=1, arms=["manifold"], alpha=0.5)
    found = prepare("iris", changes=changes, out=tmp_path / "new")
    assert found.recipe.arms["manifold"].at == ("input", "layer1", "layer2")


def test_settings_of_the_data_hold_while_the_recipe_is_generated(tmp_path):
    changes = Changes(seeds=1, epochs=1, settings=["data.test_fraction=0.5", "splits=2"])
    found = prepare("iris", changes=changes, out=tmp_path / "new")
    assert len(found.data.test) == 75
    assert found.recipe.splits == 2


def test_a_regression_study_of_a_table_ends_with_a_frame_and_a_page_for_notebooks(cars, tmp_path):
    pytest.importorskip("pandas")
    done = package.study(
        cars, seeds=2, epochs=3, arms=["erm", "c-mixup"], out=tmp_path / "out", quiet=True
    )
    assert done.summary["metric"] == "rmse"
    assert [row["arm"] for row in done.rows] == ["erm", "c-mixup"]
    frame = done.to_frame()
    assert frame["rmse"].tolist() == [row["metrics"]["rmse"]["value"] for row in done.rows]
    assert done.winner in (None, "c-mixup")
    assert done.report().read_text().startswith("<!doctype html>")
    assert "<th>test RMSE</th>" in done._repr_html_()
    assert repr(done).endswith(f"\nreport: {done.report()}")
    assert len(repr(done)) < 1000


def test_a_study_of_splits_gives_an_interval_over_them(tmp_path):
    done = package.study(
        "iris", seeds=1, epochs=4, arms=["erm", "mixup"], out=tmp_path / "out", quiet=True,
        settings=["splits=3"],
    )  # fmt: skip
    accuracy = done.rows[0]["metrics"]["accuracy"]
    trials = sorted((tmp_path / "out" / "trials").glob("erm-*"))
    values = [100 * json.loads((t / "result.json").read_text())["test_metric"] for t in trials]
    assert [t.name for t in trials] == [
        f"erm-true-labels-seed0{end}" for end in ("", "-split1", "-split2")
    ]
    assert accuracy["value"] == pytest.approx(np.mean(values), abs=1e-3)
    half = 4.302653 * np.std(values, ddof=1) * math.sqrt(1 / 3 + 1 / 2)  # t with 2 degrees; 50/100
    assert accuracy["value"] - accuracy["low"] == pytest.approx(half, abs=1e-3)
    assert done.rows[1]["verdict"] != "withheld"
    for trial, value in zip(trials, values, strict=True):  # each on its own test examples
        scores = scored(trial)
        assert 100 * scores.metrics["accuracy"] == pytest.approx(value)


def test_the_constant_prediction_is_a_mean_over_the_splits(cars, tmp_path):
    done = package.study(
        cars, seeds=1, epochs=1, arms=["erm", "mixup"], settings=["splits=3"], quiet=True,
        out=tmp_path / "out",
    )  # fmt: skip
    trials = (tmp_path / "out" / "trials").glob("erm-*")
    constants = [json.loads((t / "result.json").read_text())["constant_metric"] for t in trials]
    assert len(set(constants)) == 3
    assert done.summary["constant"]["rmse"] == pytest.approx(np.mean(constants), rel=1e-4)


def test_a_validation_split_chooses_the_best_epoch_and_both_are_reported(tmp_path):
    done = package.study(
        "iris", seeds=2, epochs=5, arms=["erm", "mixup"], out=tmp_path / "out", quiet=True,
        settings=["data.validation_fraction=0.3", "splits=1"],
    )  # fmt: skip
    folder = tmp_path / "out" / "trials" / "erm-true-labels-seed1"
    result = json.loads((folder / "result.json").read_text())
    rows = (folder / "metrics.csv").read_text().splitlines()
    where = rows[0].split(",").index("validation_accuracy")
    accuracies = [float(row.split(",")[where]) for row in rows[1:]]
    assert result["best_epoch"] == 1 + accuracies.index(max(accuracies))
    assert done.rows[0]["best"] is not None
    scores = scored(folder, split="validation")
    assert scores.metrics["accuracy"] == pytest.approx(accuracies[-1])
    assert done.summary["data"]["validation"]["examples"] == 36


def test_images_of_mixed_sizes_and_formats_are_studied_from_a_folder(tmp_path):
    generator = np.random.default_rng(0)
    for name, shade in (("cat", 60), ("dog", 190)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for k in range(12):
            size = (17 + k, 40 - k, 3)
            pixels = generator.integers(0, 60, size, dtype=np.uint8) + np.uint8(shade)
            ending = ("png", "jpg", "bmp")[k % 3]
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{k}.{ending}")
    done = package.study(
        tmp_path / "pets", seeds=2, epochs=1, arms=["erm", "cutmix"], out=tmp_path / "out",
        model="small-cnn", quiet=True,
    )  # fmt: skip
    text = (tmp_path / "out" / "recipe.toml").read_text()
    assert tomllib.loads(text)["data"]["source"].startswith("folder:")
    told = []
    prepare(str(tmp_path / "pets"), changes=FEW, out=tmp_path / "more", log=told.append)
    assert any("augmented: random-crop, random-horizontal-flip. If left" in one for one in told)
    assert "size=" in tomllib.loads(text)["data"]["source"]
    assert done.summary["data"]["classes"] == ["cat", "dog"]


def test_a_source_that_leaves_nothing_to_guess_is_taken_as_it_is(cars, tmp_path):
    other = cars.rename(tmp_path / "cars.data")  # an ending that is not recognized
    source = f"table:{other}?label=price"
    assert prepare(source, changes=FEW, out=tmp_path / "out").recipe.data.source == source


def test_a_category_that_one_fold_alone_has_does_not_prevent_the_comparison(tmp_path, vicinal):
    lines = ["age,port,survived"]
    lines += [f"{k % 9},{'SC'[k % 2]},{('no', 'yes')[k % 9 > 4]}" for k in range(40)]
    lines[5] = "3,Q,no"
    (tmp_path / "titanic.csv").write_text("\n".join(lines) + "\n")
    done = package.study(
        tmp_path / "titanic.csv", seeds=1, epochs=1, arms=["erm", "mixup"], out=tmp_path / "out",
        settings=["splits=2"], quiet=True,
    )  # fmt: skip
    folders = [tmp_path / "out" / "trials" / f"erm-true-labels-seed0{k}" for k in ("", "-split1")]
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    sizes = [one["origin"]["network"]["parameters"] for one in results]
    assert sizes[0] != sizes[1]
    assert [row["n"] for row in done.rows] == [2, 2]
    checkpoint = folders[1] / "checkpoint.safetensors"
    own = results[1]["test_metric"]
    copy = tmp_path / "copy.csv"
    copy.write_bytes((tmp_path / "titanic.csv").read_bytes())
    for data in ([], ["--data", tmp_path / "titanic.csv"], ["--data", copy]):
        scored = vicinal("score", checkpoint, "--json", *data)
        assert json.loads(scored.stdout)["metrics"]["accuracy"] == own, data
        assert json.loads(scored.stdout)["examples"] == 20
    whole = vicinal("score", tmp_path / "out", "--json", "--arm", "erm")
    assert json.loads(whole.stdout)["metrics"]["accuracy"] == results[0]["test_metric"]
    refused = vicinal("score", checkpoint, "--test-fraction", 0.5)
    assert refused.exit_code == 2
    assert "was trained on fold 2 of 2, got 0.5" in refused.stderr


def test_a_folder_named_like_a_data_set_is_the_folder_that_was_named(tmp_path, monkeypatch):
    for k, name in enumerate("ab"):
        (tmp_path / "digits" / name).mkdir(parents=True)
        for n in range(6):
            Image.new("RGB", (16, 16), (90 * k, n, 0)).save(tmp_path / "digits" / name / f"{n}.png")
    monkeypatch.chdir(tmp_path)
    assert source_of("folder:digits", print) == "folder:digits"
    (tmp_path / "digits" / "a" / "0.wav").write_bytes(b"")
    (tmp_path / "digits" / "more.rec").write_bytes(b"")
    assert source_of("folder:digits", print) == "folder:digits"
    assert source_of("folder:iris", print) == "folder:iris"  # whose reader says what is missing


def test_gray_images_of_three_channels_are_not_flipped(tmp_path):
    for mode, color in (("L", 90), ("RGB", (9, 90, 0))):
        for k, name in enumerate("ab"):
            (tmp_path / mode / name).mkdir(parents=True)
            for n in range(6):
                Image.new(mode, (16, 17 + k), color).save(tmp_path / mode / name / f"{n}.png")
        text = prepare(str(tmp_path / mode), changes=FEW, out=tmp_path / f"{mode} out").text
        assert ("random-horizontal-flip" in text) == (mode == "RGB")


def test_a_source_that_was_edited_in_the_recipe_is_used_and_shown(cars, tmp_path):
    told, out = [], tmp_path / "out"
    first = prepare(str(cars), changes=FEW, out=out)
    source = first.recipe.data.source
    out.mkdir()
    other = source.replace("label=price", "label=age")
    (out / "recipe.toml").write_text(first.text.replace(source, other))
    second = prepare(str(cars), changes=FEW, out=out, log=told.append)
    assert second.recipe.data.source == other
    assert any(f"recipe.toml reads {other}" in one for one in told)
    for other in (f"{cars}?drop=age", f"{cars}?label=price"):
        with pytest.raises(UserError, match="holds a study of"):
            prepare(other, changes=FEW, out=out)


def test_any_character_of_a_path_can_be_in_a_recipe(cars, tmp_path):
    for name in ("🌸.csv", "a\\b\x7f.csv", "two\nlines'\".csv"):
        path = tmp_path / name
        path.write_text(cars.read_text())
        found = prepare(f"table:{path}?label=price", changes=FEW, out=tmp_path / "new")
        assert tomllib.loads(found.text)["data"]["source"] == f"table:{path}?label=price"


def test_the_error_of_a_source_names_the_option_or_the_path_that_is_wrong(cars, tmp_path):
    for what, words in (
        (f"table:{cars}?group=typo", "there is no column 'typo'"),
        (f"table:{tmp_path}/nope.dat", "nope.dat"),
        (f"folder:{tmp_path}/v1.0", "there is no folder of images"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            prepare(what, changes=FEW, out=tmp_path / "new")


def test_seeds_epochs_and_arms_can_be_changed_until_a_trial_is_finished(cars, tmp_path):
    out = tmp_path / "out"
    first = prepare(str(cars), changes=Changes(seeds=2, epochs=3), out=out)
    assert first.text != resolved_text(first.recipe)  # it has comments
    out.mkdir()
    with open_study(first.recipe, out, text=first.text) as study:
        study.write_recipe()
    fewer = prepare(str(cars), changes=Changes(epochs=1, arms=("erm", "mixup")), out=out)
    with open_study(fewer.recipe, out, text=fewer.text, of_folder=fewer.of_folder) as study:
        study.write_recipe()
    kept = (out / "recipe.toml").read_text("utf-8")
    assert "#" in kept
    assert read_recipe(str(out / "recipe.toml")).training.epochs == 1
    with (
        pytest.raises(UserError, match="holds a study with different settings"),
        open_study(first.recipe, out),
    ):
        pass


def test_folds_in_which_the_metric_is_undefined_are_not_chosen(tmp_path):
    rows = [f"{k},{int(k < 30)},p{k // 10}" for k in range(120)]
    (tmp_path / "rows.csv").write_text("a,y,patient\n" + "\n".join(rows) + "\n")
    said = []
    found = prepare(
        f"{tmp_path / 'rows.csv'}?label=y&group=patient",
        changes=Changes(metric="auroc", seeds=1, epochs=1),
        out=tmp_path / "out",
        log=said.append,
    )
    assert found.recipe.splits == 1
    assert any("there is one test split: metrics: AUROC is undefined" in text for text in said)


@pytest.mark.parametrize("what", ["Cars.csv", "Cars.csv?label=price", "table:Cars.csv?label=price"])
def test_the_study_of_data_that_are_gone_is_still_found(cars, tmp_path, monkeypatch, what):
    monkeypatch.chdir(cars.parent)
    few = Changes(seeds=1, epochs=1)
    first = prepare(what, changes=few, out=tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/recipe.toml").write_text(first.text)
    cars.unlink()
    assert prepare(what, changes=few, out=tmp_path / "out").recipe == first.recipe
    for other, folder in (("trucks.csv", "out"), (what, "empty")):
        with pytest.raises(UserError, match=r"no file or folder|no table"):
            prepare(other, changes=few, out=tmp_path / folder)


@pytest.mark.parametrize("name", ["arms", "settings"])
def test_a_string_instead_of_a_list_is_an_error(name, tmp_path):
    with pytest.raises(UserError, match=rf"{name}: expected a list, got 'a,b'. Pass \['a,b'\]"):
        package.study("digits", **{name: "a,b"}, out=tmp_path)
