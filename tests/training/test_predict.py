"""Predictions of trained networks for new files: equal to what the training recorded."""

import csv
import io
import json
import math
import os
import shutil
import tomllib

import numpy as np
import pytest
import soundfile
import tomlkit
import torch
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

import vicinal
import vicinal as package
from vicinal.cli import app
from vicinal.data import raw_examples
from vicinal.errors import UserError
from vicinal.training.evaluation import Predictions
from vicinal.training.trained_network import TrainedNetwork

TRAINING = {
    "epochs": 2,
    "batch_size": 16,
    "optimizer": {"name": "adamw", "lr": 0.01},
    "schedule": {"name": "one-cycle"},
    "accelerator": "cpu",
    "threads": 1,
}


def command(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done


def trained(folder, source, network, **training):
    """Train a network on a data set, and return the folder of the trial."""
    recipe = {
        "name": "small",
        "baseline": "erm",
        "data": {"source": source},
        "model": {"name": network},
        "training": TRAINING | training,
        "arms": {"erm": {"title": "ERM", "policy": "none"}},
    }
    (folder / "small.toml").write_text(tomlkit.dumps(recipe))
    words = ["train", folder / "small.toml", "--arm", "erm", "--out", folder / "run"]
    command(*words, "--logger", "none")
    return folder / "run"


def recorded(run):
    """Return the outputs for the test split that the training wrote."""
    return torch.from_numpy(load_file(run / "outputs.safetensors")["last"])


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def probabilities(text):
    return np.array(
        [
            [float(v) for k, v in row.items() if k.startswith("probability_")]
            for row in rows_of(text)
        ]
    )


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """Train on images of several formats, modes and sizes; return their folder and the trial."""
    folder = tmp_path_factory.mktemp("flowers")
    generator = np.random.default_rng(0)
    modes = {"png": "RGB", "jpg": "RGB", "gif": "P", "webp": "RGB", "bmp": "L", "tif": "RGBA"}
    for split, count in (("train", 12), ("test", 6)):
        for brightness, name in ((0, "rose"), (120, "tulip")):
            (folder / "data" / split / name).mkdir(parents=True)
            for k in range(count):
                ending, mode = list(modes.items())[k % 6]
                size = (9 + k, 10 + (5 * k) % 7, 3)
                pixels = generator.integers(brightness, brightness + 120, size, np.uint8)
                path = folder / "data" / split / name / f"{k:02}.{ending}"
                Image.fromarray(pixels).convert(mode).save(path)
    source = f"folder:{folder / 'data'}?size=8"
    return folder / "data", trained(folder, source, "small-cnn", tta=True)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Train on recordings; return their folder and the trial."""
    folder = tmp_path_factory.mktemp("words")
    time = np.arange(4000) / 8000
    listed = []
    for name, hertz in (("no", 200), ("yes", 900)):
        (folder / "data" / name).mkdir(parents=True)
        for k in range(24):
            wave = 0.5 * np.sin(2 * np.pi * (hertz + 5 * k) * time[: 3000 + 50 * k])
            soundfile.write(folder / "data" / name / f"{k:02}.wav", wave, 8000)
        listed += [f"{name}/{k:02}.wav" for k in range(20, 24)]
    (folder / "data" / "testing_list.txt").write_text("\n".join(listed))
    source = f"commands:{folder / 'data'}?rate=8000&seconds=0.5"
    return folder / "data", listed, trained(folder, source, "small-cnn")


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Train on a table with categories and missing values; return its folder and the trial."""
    return _table(tmp_path_factory.mktemp("pets"), lambda a, color: "cat" if a < 5 else "=dog()")


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    """Train a regression on a table; return its folder and the trial."""
    return _table(tmp_path_factory.mktemp("prices"), lambda a, color: f"{1000 + 10 * a:.2f}")


def _table(folder, label):
    generator = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        lines = ["size,color,y"]
        for _ in range(count):
            size, color = generator.uniform(0, 10), generator.choice(["red", "blue", ""])
            known = "" if generator.uniform() < 0.1 else f"{size:.3f}"
            lines.append(f"{known},{color},{label(size, color)}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    source = f"table:{folder / 'train.csv'}?label=y&test={folder / 'test.csv'}"
    return folder, trained(folder, source, "mlp")


def test_the_test_images_get_the_outputs_of_the_training_bit_for_bit(flowers):
    folder, run = flowers
    expected = recorded(run).softmax(1)
    network = vicinal.load(run / "checkpoint.safetensors")
    assert (network.task, network.classes) == ("classification", ("rose", "tulip"))
    assert torch.equal(network(folder / "test"), expected)
    done = command("predict", run, folder / "test")
    found = rows_of(done.stdout)
    assert list(found[0]) == ["file", "prediction", "probability_rose", "probability_tulip"]
    files = [
        f"{folder}/test/{row.parent.name}/{row.name}" for row in sorted(folder.glob("test/*/*"))
    ]
    assert [row["file"] for row in found] == files
    assert np.array_equal(probabilities(done.stdout).astype(np.float32), expected.numpy())
    assert [row["prediction"] for row in found] == [
        ("rose", "tulip")[k] for k in expected.argmax(1)
    ]


def test_images_in_memory_are_prepared_as_those_in_files(flowers):
    folder, run = flowers
    network = vicinal.load(run)
    paths = [path for path in sorted(folder.glob("test/*/*")) if path.suffix != ".jpg"]
    expected = network(paths)
    images = [copied(path) for path in paths]
    assert torch.equal(network(images), expected)
    arrays = [np.asarray(image.convert("RGB")) for image in images if image.mode == "RGB"]
    kept = [k for k, image in enumerate(images) if image.mode == "RGB"]
    assert torch.equal(network(arrays), network([paths[k] for k in kept]))
    assert torch.equal(network(images[0]), network(paths[:1]))


def copied(path):
    with Image.open(path) as image:
        return image.copy()


def test_an_image_that_cannot_be_decoded_is_left_out_if_bad_ones_are_skipped(flowers, tmp_path):
    folder, run = flowers
    network, whole = vicinal.load(run), copied(next((folder / "test" / "rose").glob("*.png")))
    whole.resize((90, 90)).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with Image.open(tmp_path / "cut.png") as cut:
        with pytest.raises(UserError, match="image 1: the image cannot be decoded"):
            network([whole, cut])
        assert torch.equal(network([whole, cut], skip_bad=True), network([whole]))


def test_many_files_get_the_same_predictions_batch_by_batch(flowers, monkeypatch):
    folder, run = flowers
    network = vicinal.load(run)
    expected = network(folder / "test")
    monkeypatch.setattr(raw_examples, "TOGETHER", 3)
    monkeypatch.setattr("vicinal.training.trial_setup.BATCH", 5)
    monkeypatch.setattr("vicinal.data.loader.available_cores", lambda: 0)
    torch.testing.assert_close(network(folder / "test"), expected, rtol=1e-5, atol=1e-6)


def test_the_folder_of_the_training_by_its_path_is_split_as_it_was(tmp_path, vicinal):
    time = np.arange(2000) / 8000
    for k in range(60):
        name, speaker = ("no", "yes")[k % 2], "abcdef"[k % 6]
        path = tmp_path / "words" / name / f"{speaker}_nohash_{k}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.sin(2 * np.pi * (200 + 600 * (k % 2) + k) * time), 8000)
    source = f"commands:{tmp_path / 'words'}?rate=8000&seconds=0.25&group=speaker"
    run = trained(tmp_path, source, "mlp")
    own = json.loads(vicinal("score", run, "--json").stdout)
    again = vicinal("score", run, "--data", tmp_path / "words", "--json")
    assert json.loads(again.stdout) == own
    assert "is the data set of the training, and is split as it was" in again.stderr
    recipe = tomllib.loads((tmp_path / "small.toml").read_text())
    recipe["data"] |= {"source": source.replace(f"{tmp_path}/", ""), "root": str(tmp_path)}
    (tmp_path / "root.toml").write_text(tomlkit.dumps(recipe))
    command("train", tmp_path / "root.toml", "--arm", "erm", "--out", tmp_path / "root")
    again = vicinal("score", tmp_path / "root", "--data", tmp_path / "words", "--json")
    assert json.loads(again.stdout)["examples"] == own["examples"]
    fraction = recipe["data"].get("test_fraction", 0.2)
    words = "--data", tmp_path / "words", "--test-fraction", fraction
    again = vicinal("score", run, *words, "--json")
    assert json.loads(again.stdout)["examples"] == own["examples"]
    shutil.copytree(tmp_path / "words", tmp_path / "moved")
    again = vicinal("score", run, "--data", tmp_path / "moved", "--json")
    assert json.loads(again.stdout)["examples"] == own["examples"]
    soundfile.write(tmp_path / "moved" / "no" / "g_nohash_98.wav", np.sin(time / 2), 8000)
    other = vicinal("score", run, "--data", tmp_path / "moved", "--json")
    assert "is the data set of the training" not in other.stderr
    for words in (("--data", tmp_path / "words", "--seed", 5), ("--test-fraction", 0.5)):
        assert "this is another split of the data of the tr" in vicinal("score", run, *words).stderr
    assert "another split" not in vicinal("score", run, "--seed", 0).stderr
    soundfile.write(tmp_path / "words" / "no" / "g_nohash_99.wav", np.sin(time), 8000)
    grown = vicinal("score", run, "--data", tmp_path / "words", "--json")
    assert "has changed since" in grown.stderr
    assert "is the data set of the training" not in grown.stderr
    assert grown.exit_code == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("training.tta", "true"), ("data.augment", "[{name='random-horizontal-flip'}]")],
)
def test_recordings_are_not_played_backwards(words, vicinal, tmp_path, field, value):
    out = tmp_path / "out"
    setting = f"{field}={value}"
    refused = vicinal(
        "study", words[0], "--seeds", 1, "--epochs", 1, "--set", setting, "--out", out
    )
    assert refused.exit_code == 2
    assert f"{field}: a horizontal flip expects images, got spectrograms" in refused.stderr
    noise = "arms.mixup.augment=[{name='gaussian-noise', std=0.1}]"
    settings = "--set", setting, "--set", noise
    refused = vicinal("study", words[0], "--seeds", 1, "--epochs", 1, *settings, "--out", out)
    assert f"{field}: a horizontal flip expects images, got spectrograms" in refused.stderr


def test_the_test_recordings_get_the_outputs_of_the_training_bit_for_bit(words):
    folder, listed, run = words
    found = vicinal.load(run)([folder / name for name in sorted(listed)])
    assert torch.equal(found, recorded(run).softmax(1))


def test_the_rows_of_a_table_get_the_outputs_of_the_training_without_their_labels(pets, tmp_path):
    folder, run = pets
    expected = recorded(run).softmax(1)
    rows = rows_of((folder / "test.csv").read_text())
    bare = tmp_path / "bare.csv"
    bare.write_text("color,extra,size\n" + "".join(f"{r['color']},7,{r['size']}\n" for r in rows))
    network = vicinal.load(run)
    assert torch.equal(network(folder / "test.csv"), expected)
    assert torch.equal(network(str(bare)), expected)
    dictionaries = [
        {"size": float(r["size"]) if r["size"] else None, "color": r["color"] or None} for r in rows
    ]
    assert torch.equal(network(dictionaries), expected)
    columns = {name: [row[name] for row in dictionaries] for name in ("color", "size")}
    arrow = pytest.importorskip("pyarrow").table(columns)
    assert torch.equal(network(arrow), expected)
    done = command("predict", run, bare)
    found = rows_of(done.stdout)
    assert [row["row"] for row in found] == [str(k) for k in range(2, 22)]
    assert {row["file"] for row in found} == {str(bare)}
    assert "ignored columns that are not inputs: 'extra'" in done.stderr


@pytest.mark.parametrize("spelled", [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
def test_a_frame_has_the_numbers_and_booleans_of_the_file_it_was_read_from(tmp_path, spelled):
    pa = pytest.importorskip("pyarrow")
    generator = np.random.default_rng(2)
    size, flag = generator.integers(0, 8000, 60) / 8, generator.integers(0, 2, 60)
    label = np.where((size > 500) ^ (flag == 1), "b", "a")
    lines = [
        f"{a:.3f};{spelled[1 - f]};{y}".replace(".", ",")
        for a, f, y in zip(size, flag, label, strict=True)
    ]
    for name, some in (("train", lines[:40]), ("test", lines[40:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["size;flag;y", *some]) + "\n")
    options = f"label=y&decimal=,&thousands=.&test={tmp_path / 'test.csv'}"
    network = vicinal.load(trained(tmp_path, f"table:{tmp_path / 'train.csv'}?{options}", "mlp"))
    expected = recorded(tmp_path / "run").softmax(1)
    columns = {"size": size[40:], "flag": flag[40:] == 1, "when": [[1]] * 20}
    assert torch.equal(network(pa.table(columns)), expected)
    rows = [
        {"size": a, "flag": bool(f)} for a, f in zip(size[40:].tolist(), flag[40:], strict=True)
    ]
    assert torch.equal(network(rows), expected)
    assert torch.equal(network(tmp_path / "test.csv"), expected)
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), tmp_path / "new.parquet")
    assert torch.equal(network(tmp_path / "new.parquet"), expected)
    with pytest.warns(UserWarning, match="'flag' in 1 of 1 rows"):
        network([{"size": 1.0, "flag": "perhaps"}])


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_an_example_without_a_finite_output_is_named(pets, tmp_path, vicinal, as_json, monkeypatch):
    _, run = pets
    path = tmp_path / "new.csv"
    path.write_text("size,color\n1,red\n3e38,red\n")
    logits = torch.tensor([[0.0, 1.0], [math.nan, 0.0]])  # as after an overflow
    found = Predictions(logits, torch.arange(2))
    monkeypatch.setattr(TrainedNetwork, "outputs_of", lambda *_: iter([found]))
    refused = vicinal("predict", run, path, *as_json)
    assert refused.exit_code == 2
    assert "row 3: the network returns [nan" in refused.stderr
    assert "nan" not in refused.stdout.lower()
    done = vicinal("predict", run, path, "--skip-bad", *as_json)
    assert done.exit_code == 0
    assert "skipped: file" in done.stderr
    assert done.stdout.count(str(path)) == 1


def test_missing_columns_and_bad_cells_are_named_and_unknown_categories_are_reported(
    pets, tmp_path, vicinal
):
    _, run = pets
    path = tmp_path / "new.csv"
    path.write_text("size,color\n1,red\nlarge,red\n2,green\n")
    refused = vicinal("predict", run, path)
    assert refused.exit_code == 2
    assert "new.csv row 3: expected a number in column 'size', got 'large'" in refused.stderr
    assert "categories" not in refused.stderr
    done = vicinal("predict", run, path, "--skip-bad")
    assert done.exit_code == 0, done.output
    assert [row["row"] for row in rows_of(done.stdout)] == ["2", "4"]
    assert "skipped: " in done.stderr
    assert "warning: categories that are not in the training split" in done.stderr
    assert "missing numbers" not in done.stderr
    path.write_text("size,color\n,red\n2,red\n")
    filled = vicinal("predict", run, path).stderr
    assert "missing numbers become the mean of the training split: 'size' in 1 of 2 rows" in filled
    path.write_text("size\n1\n2\n")
    assert "has no column 'color'" in vicinal("predict", run, path).stderr


def test_a_table_without_names_keeps_its_columns_in_place(tmp_path):
    generator = np.random.default_rng(1)
    values = generator.uniform(0, 1, (40, 2))
    labels = np.where(values[:, 0] > 0.5, "b", "a")
    lines = [f"{y},{u:.4f},{v:.4f}" for y, (u, v) in zip(labels, values, strict=True)]
    for name, some in (("train", lines[:30]), ("test", lines[30:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(some) + "\n")
    where = f"{tmp_path / 'train.csv'}?label=0&header=no&test={tmp_path / 'test.csv'}"
    run = trained(tmp_path, f"table:{where}", "mlp")
    network = vicinal.load(run)
    assert torch.equal(network(tmp_path / "test.csv"), recorded(run).softmax(1))
    short = tmp_path / "short.csv"
    short.write_text("\n".join(line.partition(",")[2] for line in lines[30:]) + "\n")
    with pytest.raises(UserError, match=r"short.csv: expected 3 columns .* label, number 0"):
        network(short)


def test_a_regression_predicts_values_in_the_units_of_its_targets(prices):
    folder, run = prices
    expected = recorded(run)
    assert 900 < float(expected.mean()) < 1200
    network = vicinal.load(run)
    assert (network.task, network.classes) == ("regression", ())
    assert torch.equal(network(folder / "test.csv"), expected)
    done = command("predict", run, folder / "test.csv", "--json")
    found = json.loads(done.stdout)
    assert set(found[0]) == {"file", "row", "prediction"}
    assert np.array_equal(
        np.array([row["prediction"] for row in found], np.float32), expected[:, 0].numpy()
    )


def test_a_multi_label_network_predicts_the_probability_of_each_label(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 4)).astype(np.float32)
    y = (x[:, :3] > 0).astype(np.float32)
    arrays = {"train_inputs": x[:40], "train_labels": y[:40]}
    np.savez(tmp_path / "a.npz", **arrays, test_inputs=x[40:], test_labels=y[40:])
    run = trained(tmp_path, f"npz:{tmp_path / 'a.npz'}", "mlp", epochs=20)
    found = vicinal.load(run)(x[40:])
    assert torch.equal(found, recorded(run).sigmoid())
    done = command("predict", run, "--data", f"npz:{tmp_path / 'a.npz'}")
    rows = rows_of(done.stdout)
    assert list(rows[0]) == ["example", "prediction", *(f"probability_{k}" for k in range(3))]
    for row, values in zip(rows, found.tolist(), strict=True):
        assert row["prediction"].split() == [str(k) for k in range(3) if values[k] > 0.5]
    scored = json.loads(command("score", run / "checkpoint.safetensors", "--json").stdout)
    result = json.loads((run / "result.json").read_text())
    assert scored["metrics"][result["metric"]] == result["test_metric"]
    refused = CliRunner().invoke(app, ["predict", str(run), str(tmp_path / "a.npz")])
    assert "trained on arrays of shape (4,)" in refused.stderr
    np.save(tmp_path / "new.npy", x[40:].astype(np.float64))
    from_file = rows_of(command("predict", run, tmp_path / "new.npy").stdout)
    assert from_file == [
        {"file": str(tmp_path / "new.npy"), "row": str(k)} | {n: row[n] for n in list(row)[1:]}
        for k, row in enumerate(rows)
    ]


@pytest.mark.parametrize("channels", [(), (3,)])
def test_images_in_an_array_get_the_outputs_of_the_training_bit_for_bit(tmp_path, channels):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 8, 8, *channels), np.uint8)
    labels = np.arange(40) % 2
    arrays = {"train_images": images[:24], "train_labels": labels[:24]}
    np.savez(tmp_path / "a.npz", **arrays, test_images=images[24:], test_labels=labels[24:])
    run = trained(tmp_path, f"npz:{tmp_path / 'a.npz'}", "mlp")
    np.save(tmp_path / "new.npy", images[24:])
    assert torch.equal(vicinal.load(run)(tmp_path / "new.npy"), recorded(run).softmax(1))
    np.save(tmp_path / "wide.npy", images[:, :, :4])
    np.save(tmp_path / "floats.npy", images / 255)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "new.npy").read_bytes()[:300])
    for name, expected in (
        ("wide", r"wide\.npy: expected an array of shape \(n, \d, 8, 8\)"),
        ("floats", r"floats\.npy: expected images of type uint8"),
        ("cut", r"cut\.npy: expected an array of numbers that numpy\.save wrote"),
        ("gone", r"gone\.npy cannot be read \(No such file"),
    ):
        with pytest.raises(UserError, match=expected):
            vicinal.load(run)(tmp_path / f"{name}.npy")
    bad = tmp_path / "bad"
    bad.mkdir()
    (tmp_path / "cut.npy").rename(bad / "a.npy")
    (bad / ".DS_Store").write_text("")
    done = command("predict", run, bad, tmp_path / "new.npy", "--skip-bad")
    assert len(rows_of(done.stdout)) == 16
    assert "skipped 1 hidden" in done.stderr
    assert "bad/a.npy: expected an array of numbers" in done.stderr
    Image.new("RGB", (8, 8)).save(tmp_path / "new.png")
    for header in (b"{'descr': '<f4', 'shape': (", b"{'descr': '|u1', 'shape': (True, 2), "):
        (tmp_path / "odd.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.ljust(118))
        with pytest.raises(UserError, match=r"odd\.npy: expected an array of numbers"):
            vicinal.load(run)(tmp_path / "odd.npy")
    for skip_bad in (False, True):
        with pytest.raises(UserError, match=r"new\.npy: expected \.npy files alone"):
            vicinal.load(run)([tmp_path / "new.npy", tmp_path / "new.png"], skip_bad=skip_bad)


def test_an_ensemble_averages_the_probabilities_of_the_seeds(finished_study, vicinal):
    folders = [finished_study / "trials" / f"mixup-true-labels-seed{k}" for k in range(2)]
    expected = torch.stack([recorded(folder).softmax(1) for folder in folders]).mean(0)
    words = ["predict", finished_study, "--data", "digits", "--arm", "mixup"]
    done = vicinal(*words, "--ensemble")
    assert done.exit_code == 0, done.output
    assert "using the arm mixup: the mean of seeds 0, 1" in done.stderr
    assert np.array_equal(probabilities(done.stdout).astype(np.float32), expected.numpy())
    one = vicinal(*words)
    assert np.array_equal(
        probabilities(one.stdout).astype(np.float32), recorded(folders[0]).softmax(1).numpy()
    )


def test_digits_in_files_are_refused_since_their_white_is_another(
    finished_study, vicinal, tmp_path
):
    Image.new("L", (8, 8)).save(tmp_path / "zero.png")
    refused = vicinal("predict", finished_study, tmp_path / "zero.png", "--arm", "erm")
    assert refused.exit_code == 2
    assert "white pixels have the value 16, as in training, got image files" in refused.stderr


def test_finished_predictions_are_kept_if_a_later_file_cannot_be_read(pets, tmp_path, vicinal):
    _, run = pets
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("size,color\n1,red\n9,blue\n")
    for words, read in (([], rows_of), (["--json"], json.loads)):
        out = tmp_path / f"out{len(words)}"
        refused = vicinal("predict", run, good, bad, "--out", out, *words)
        assert refused.exit_code == 2
        assert "bad.csv" in refused.stderr
        assert len(read(out.read_text())) == 2
        again = vicinal("predict", run, good, "--out", out, *words)
        assert "exists already" in again.stderr
        assert len(read(out.read_text())) == 2


def test_unreadable_images_are_errors_or_are_skipped_and_reported(flowers, tmp_path, vicinal):
    folder, run = flowers
    good = next((folder / "test" / "rose").iterdir())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and nothing else")
    words = ["predict", run, good, tmp_path / "broken.png", tmp_path / "none.png"]
    refused = vicinal(*words)
    assert refused.exit_code == 2
    assert "broken.png: the image cannot be decoded" in refused.stderr
    assert refused.stdout == ""
    done = vicinal(*words, "--skip-bad")
    assert done.exit_code == 0, done.output
    assert [row["file"] for row in rows_of(done.stdout)] == [str(good)]
    assert "skipped: " in done.stderr
    assert "none.png cannot be read" in done.stderr
    for more in ([], ["--json"]):
        out = tmp_path / "nothing"
        nothing = vicinal(
            "predict", run, tmp_path / "broken.png", "--skip-bad", "--out", out, *more
        )
        assert nothing.exit_code == 2
        assert "none of the examples can be read" in nothing.stderr
        assert not out.exists()


def test_hostile_names_of_files_and_classes_are_no_formulas_and_no_escapes(
    flowers, pets, tmp_path, vicinal, monkeypatch
):
    folder, run = flowers
    good = next((folder / "test" / "rose").iterdir())
    monkeypatch.chdir(tmp_path)
    for name in ("=cmd|' !A1.png", "-1+2,\n3.png", "\x1b[31m.png", os.fsdecode(b"\xff.png")):
        (tmp_path / name).write_bytes(good.read_bytes())
    done = vicinal("predict", run, "--", *sorted(os.listdir(tmp_path)))
    assert done.exit_code == 0, done.output
    files = [row["file"] for row in rows_of(done.stdout)]
    assert files == ["\\x1b[31m.png", "'-1+2,\\n3.png", "'=cmd|' !A1.png", "\\xff.png"]
    table, run = pets
    text = vicinal("predict", run, table / "test.csv").stdout
    found = rows_of(text)
    assert list(found[0])[3:] == ["probability_=dog()", "probability_cat"]
    assert {row["prediction"] for row in found} <= {"cat", "'=dog()"}


def test_examples_that_do_not_fit_the_training_are_refused(flowers, pets):
    image, table = vicinal.load(flowers[1]), vicinal.load(pets[1])
    with pytest.raises(UserError, match=r"shape \(n, 3, 8, 8\) .* got \(2, 3, 9, 9\)"):
        image(np.zeros((2, 3, 9, 9), np.uint8))
    with pytest.raises(UserError, match=r"of one kind .* got PosixPath, dict"):
        image([flowers[0], {}])
    with pytest.raises(UserError, match="got a int"):
        image(3)
    with pytest.raises(UserError, match="got none"):
        image([])
    with pytest.raises(UserError, match="is a table, but the network was trained on"):
        image([{"size": 3}])
    with pytest.raises(
        UserError, match=r"like those of the training \(table\), got a list of images"
    ):
        table([Image.new("L", (8, 8))])


def test_files_of_another_kind_than_those_of_the_training_are_refused_whatever_is_skipped(
    flowers, pets, words, vicinal
):
    pictures, shells, sounds = flowers[0] / "test", pets[0], words[0]
    for run, files, trained_on, got in (
        (pets[1], pictures, "tables", "an image"),
        (pets[1], sounds / "no", "tables", "a recording"),
        (flowers[1], shells / "test.csv", "images", "a table"),
        (words[2], pictures, "recordings", "an image"),
    ):
        done = vicinal("predict", run, files, "--skip-bad")
        assert done.exit_code == 2
        assert f"the network was trained on {trained_on}, got {got}. Check the paths" in done.stderr
        assert "To skip" not in done.stderr
        assert not done.stdout


def test_the_checkpoint_of_an_unfinished_training_is_reported(copied_study, vicinal):
    folder = next(copied_study.glob("trials/erm-true-labels-seed0"))
    words = ["score", folder]
    assert "not finished" not in vicinal(*words).stderr
    (folder / "result.json").unlink()
    assert "using a training that is not finished" in vicinal(*words).stderr
    with pytest.warns(UserWarning, match="using a training that is not finished"):
        package.load(folder)
    (folder / "failed.json").write_text("{}")
    assert "using a training that failed" in vicinal(*words).stderr


def test_python_is_told_which_network_of_a_study_was_chosen(copied_study):
    with pytest.warns(UserWarning, match="vicinal.load: using the .*: seed 0 of 2"):
        package.load(copied_study)
    assert package.load(copied_study, arm="erm").classes == tuple("0123456789")


def test_settings_of_the_program_do_not_change_predictions(copied_study):
    network = package.load(copied_study, arm="mixup")
    x = torch.rand(40, 1, 8, 8) * 16
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(x), expected)
    torch.set_default_device("meta")
    try:
        assert torch.equal(network(x), expected)
    finally:
        torch.set_default_device(None)


def test_files_of_another_kind_in_a_folder_are_left_out_of_predictions(flowers, tmp_path, vicinal):
    folder, run = flowers
    shutil.copytree(folder / "test", tmp_path / "new")
    expected = vicinal("predict", run, tmp_path / "new").stdout
    (tmp_path / "new" / "notes.txt").write_text("taken in May")
    done = vicinal("predict", run, tmp_path / "new")
    assert (done.exit_code, done.stdout) == (0, expected)
    assert "1 file that is no image in the folders, not read, such as notes.txt" in done.stderr


def test_the_better_arm_with_the_best_metric_is_chosen_and_else_the_baseline(copied_study, vicinal):
    path = copied_study / "summary.json"
    summary = json.loads(path.read_text())
    first = summary["rows"][0]["condition"]
    for row in summary["rows"]:
        row["verdict"] = None
    path.write_text(json.dumps(summary))
    words = ["predict", copied_study, "--data", "digits"]
    assert "using the baseline erm, since no arm is better: seed 0 of 2" in vicinal(*words).stderr
    row = next(one for one in summary["rows"] if one["condition"] == first)
    row["n"] -= 1
    path.write_text(json.dumps(summary))
    why = "since the study is not finished (5 of 6 trials with true labels): seed 0"
    assert f"using the baseline erm, {why}" in vicinal(*words).stderr
    row["n"] += 1
    for row in summary["rows"]:
        if row["condition"] == first and row["arm"] != "erm":
            row["verdict"] = "better"
            row["metrics"]["accuracy"]["value"] = 99.0 if row["arm"] == "mixup-features" else 98.0
    path.write_text(json.dumps(summary))
    assert "using the arm mixup-features, which is better than erm" in vicinal(*words).stderr
    unknown = vicinal(*words, "--arm", "mixupp")
    assert unknown.exit_code == 2
    assert "Did you mean 'mixup'?" in unknown.stderr
    path.unlink()
    assert "choose an arm with --arm" in vicinal(*words).stderr


def test_a_prediction_needs_files_or_data_and_a_study_for_an_arm(pets, vicinal):
    _, run = pets
    assert "expected either files or --data" in vicinal("predict", run).stderr
    refused = vicinal("predict", run / "checkpoint.safetensors", "x.csv", "--arm", "erm")
    assert "expect the folder of a study" in refused.stderr


def test_the_scores_of_a_regression_are_those_of_scikit_learn(prices, vicinal):
    from sklearn import metrics

    folder, run = prices
    scored = json.loads(vicinal("score", run / "checkpoint.safetensors", "--json").stdout)
    rows = rows_of((folder / "test.csv").read_text())
    true, found = np.array([float(row["y"]) for row in rows]), recorded(run)[:, 0].double().numpy()
    assert scored["metrics"] == pytest.approx(
        {
            "rmse": metrics.root_mean_squared_error(true, found),
            "mae": metrics.mean_absolute_error(true, found),
            "r2": metrics.r2_score(true, found),
        },
        rel=1e-5,
    )
    known = [float(row["y"]) for row in rows_of((folder / "train.csv").read_text())]
    assert scored["constant"]["mae"] == pytest.approx(np.abs(true - np.median(known)).mean())
    assert scored["worst"] == []
    shown = vicinal("score", run / "checkpoint.safetensors").stdout
    assert "RMSE" in shown
    assert "constant prediction" in shown


def test_pixels_from_0_to_1_are_refused_where_training_had_0_to_255(flowers):
    network = vicinal.load(flowers[1])
    pixels = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(network(pixels.float()), network(pixels))
    assert network(torch.zeros(4, 3, 8, 8)).shape == (4, 2)
    assert torch.equal(network(pixels.long()), network(pixels))
    for wrong in (pixels / 255, pixels > 99):
        with pytest.raises(UserError, match=r"pixels from 0 to 255, .* multiply them by 255"):
            network(wrong)
    for wrong in (pixels.long() * 3, -pixels.long(), pixels.float() - 1):
        with pytest.raises(UserError, match=r"pixels from 0 to 255, .* Convert them"):
            network(wrong)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(UserError, match="expected finite numbers, got"):
            network(torch.full((4, 3, 8, 8), bad))


def test_numbers_far_from_those_of_the_training_are_a_warning(pets):
    network = vicinal.load(pets[1])
    with pytest.warns(UserWarning, match=r"more than 100 standard deviations .*'size' in 1 of 2"):
        network([{"size": 3.5, "color": "red"}, {"size": 3500.0, "color": "red"}])


def test_columns_that_are_named_by_numbers_are_found_by_name(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(80, 3))
    rows = np.column_stack([x, 3 * x[:, 0] - x[:, 1]])
    (tmp_path / "t.csv").write_text(
        "0,1,2,3\n" + "".join(",".join(f"{v:.4f}" for v in row) + "\n" for row in rows)
    )
    run = trained(tmp_path, f"table:{tmp_path / 't.csv'}?label=3&header=yes", "mlp")
    network, found = vicinal.load(run), {}
    for name, order in (("same", [0, 1, 2]), ("other", [2, 0, 1]), ("more", [3, 2, 1, 0])):
        path = tmp_path / f"{name}.csv"
        lines = (",".join(f"{row[k]:.4f}" for k in order) for row in rows)
        path.write_text("\n".join([",".join(map(str, order)), *lines]) + "\n")
        found[name] = network(path)
        assert len(found[name]) == 80
        assert [row["row"] for row in rows_of(command("predict", run, path).stdout)][:1] == ["2"]
    assert torch.equal(found["other"], found["same"])
    assert torch.equal(found["more"], found["same"])


def test_an_array_is_no_rows_of_a_table(pets):
    for array in (np.zeros((3, 2)), torch.zeros(3, 2)):
        with pytest.raises(
            UserError, match=r"expected a frame, or a list of dictionaries .* \(3, 2"
        ):
            vicinal.load(pets[1])(array)


def test_negative_classes_are_written_as_they_are(tmp_path):
    rows = "".join(f"{k % 2},{k % 7},{(-1, 1)[k % 2]}\n" for k in range(60))
    (tmp_path / "t.csv").write_text(f"a,b,y\n{rows}")
    run = trained(tmp_path, f"table:{tmp_path / 't.csv'}?label=y", "mlp", epochs=30)
    found = rows_of(command("predict", run, tmp_path / "t.csv").stdout)
    assert {row["prediction"] for row in found} == {"-1", "1"}
