import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from vicinal.data import load

MXNET = Path(__file__).parent / "data" / "mxnet"
REC = "rec:digits_40_png.rec,digits_40_png.rec"


def truth_of(path):
    with np.load(path) as file:
        return dict(file)


def test_the_list_names_every_source(vicinal):
    listed = json.loads(vicinal("data", "list", "--json").output)
    assert {"cifar10", "rec", "folder", "table", "commands"} <= set(listed)
    shown = vicinal("data", "list").output
    assert all(source["spec"] in shown for source in listed.values())


def test_info_describes_a_data_set(vicinal):
    shown = vicinal("data", "info", REC, "--root", MXNET)
    assert shown.exit_code == 0
    assert "3 x 16 x 16 uint8" in shown.output
    described = json.loads(vicinal("data", "info", REC, "--root", MXNET, "--json").output)
    truth = truth_of(MXNET / "digits_40_truth.npz")
    assert described["splits"]["train"]["count"] == 40
    assert described["splits"]["train"]["of_each_class"] == np.bincount(truth["labels"]).tolist()
    images = truth["images"].astype(float)
    assert described["inputs"]["mean"] == pytest.approx(images.mean((0, 1, 2)).tolist())
    assert described["inputs"]["std"] == pytest.approx(images.std((0, 1, 2)).tolist())
    assert described["inputs"]["highest"] == truth["images"].max()


def test_info_of_a_table_and_of_real_values(vicinal, tmp_path):
    assert "4 float32" in vicinal("data", "info", "iris").output
    lines = [f"{k},{k % 3},{k / 7}\n" for k in range(40)]
    (tmp_path / "cars.csv").write_text("size,doors,price\n" + "".join(lines))
    shown = vicinal("data", "info", "table:cars.csv?label=price", "--root", tmp_path).output
    assert "targets  real values, 0 to 5.57143" in shown
    shown = vicinal("data", "info", "iris", "--figure", tmp_path / "iris.svg")
    assert shown.exit_code == 2
    assert "iris has inputs of shape (4,), expected images or spectrograms" in shown.stderr


def test_a_figure_shows_the_first_examples_of_each_class(vicinal, tmp_path):
    out = tmp_path / "digits.svg"
    shown = vicinal("data", "info", "digits", "--figure", out)
    assert f"figure: {out}" in shown.output
    root = ElementTree.parse(out).getroot()
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert set("0123456789") <= words
    assert len(list(root.iter("{http://www.w3.org/2000/svg}image"))) == 10 * 8


def test_skipped_examples_are_reported(vicinal, tmp_path):
    assert vicinal("data", "convert", REC, tmp_path / "out", "--root", MXNET).exit_code == 0
    bad = tmp_path / "out" / "train" / "3" / "00003.png"
    bad.write_bytes(bad.read_bytes()[:30])
    refused = vicinal("data", "info", f"folder:{tmp_path / 'out'}")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("vicinal: ")
    assert "3/00003.png: the image cannot be decoded" in refused.stderr
    told = vicinal("data", "info", f"folder:{tmp_path / 'out'}", "--skip-bad").output
    assert "skipped in train: 1" in told
    assert "3/00003.png" in told.replace("\n", "")


def test_convert_writes_what_load_reads(vicinal, tmp_path):
    done = vicinal(
        "data", "convert", "digits", tmp_path / "d.rec", "--test-fraction", 0.3, "--json"
    )
    assert done.exit_code == 0
    assert json.loads(done.stdout)[0] == str(tmp_path / "d_train.rec")
    assert "pixels from 0 to 16 are written as 0 to 255" in done.stderr
    back = load("rec:d_train.rec,d_test.rec?channels=1", root=tmp_path)
    known = load("digits", test_fraction=0.3)
    scaled = np.round(known.train.inputs.double().numpy() * 255 / 16)
    assert np.array_equal(back.train.inputs.numpy(), scaled)
    again = vicinal("data", "convert", "digits", tmp_path / "d.rec")
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_convert_reports_what_it_guesses(vicinal, tmp_path):
    for number in range(12):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (140, 100), (number, 0, 0)).save(path)
    done = vicinal("data", "convert", tmp_path / "images", tmp_path / "small.npz")
    assert "resized and cropped to 64x64; ?size=N sets another size" in done.stderr
    done = vicinal("data", "convert", f"folder:{tmp_path / 'images'}", tmp_path / "whole.npz")
    assert "resized" not in done.stderr
    read = [np.load(tmp_path / f"{name}.npz") for name in ("small", "whole")]
    assert [one["train_images"].shape[1:3] for one in read] == [(64, 64), (100, 140)]


@pytest.mark.parametrize("name", ["a.rec", "b.npz", "c"])
def test_convert_reports_what_it_skipped(vicinal, tmp_path, name):
    vicinal("data", "convert", REC, tmp_path / "out", "--root", MXNET)
    (tmp_path / "out" / "train" / "3" / "00003.png").write_bytes(b"notes, and no picture")
    spec = f"folder:{tmp_path / 'out'}"
    done = vicinal("data", "convert", spec, tmp_path / name, "--skip-bad")
    assert done.exit_code == 0
    (told,) = [line for line in done.stderr.splitlines() if "skipped in" in line]
    assert told.startswith("vicinal: skipped in train: ")
    assert told.endswith("(unknown format). It is damaged, incomplete or not an image.")
    assert "3/00003.png" in told


def test_the_error_for_an_unknown_name_suggests_the_nearest(vicinal):
    for words in (("info", "cifar1"), ("fetch", "cifar1"), ("convert", "cifar1", "x.rec")):
        refused = vicinal("data", *words)
        assert refused.exit_code == 2
        assert "Did you mean 'cifar10'" in refused.stderr


def test_every_command_has_an_example(vicinal):
    for command in ("list", "info", "fetch", "convert"):
        assert f"Example: vicinal data {command}" in vicinal("data", command, "--help").output


def test_arrays_that_are_no_images_are_described_and_not_drawn(vicinal, tmp_path):
    x, y = np.zeros((40, 4, 8, 8), np.float32), np.arange(40) % 2
    x[:, 0, 0, 0] = np.arange(40)
    np.savez(tmp_path / "set.npz", x=x, y=y)
    out = tmp_path / "set.svg"
    done = vicinal("data", "info", f"npz:{tmp_path}/set.npz", "--figure", out)
    assert done.exit_code == 2
    assert "has inputs of shape (4, 8, 8), expected images or spectrograms" in done.stderr
    assert "4 x 8 x 8 float32" in done.stdout
    assert not out.exists()
