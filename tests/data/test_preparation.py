import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vicinal.data import load
from vicinal.errors import UserError

CHANCE = np.random.default_rng(0)


def images(root, *, size=(12, 10), mode="RGB"):
    for label in "ab":
        (root / label).mkdir(parents=True)
        for k in range(5):
            pixels = CHANCE.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / label / f"{k}.png")
    return root


@pytest.fixture
def words(tmp_path):
    import soundfile

    for label in ("no", "yes"):
        (tmp_path / "words" / label).mkdir(parents=True)
        for k in range(5):
            wave = CHANCE.normal(0, 0.1, 4000).astype(np.float32)
            soundfile.write(tmp_path / "words" / label / f"{k}.wav", wave, 16000)
    return f"commands:{tmp_path / 'words'}"


def test_recordings_are_prepared_with_the_rate_and_features_of_the_training(words):
    trained = load(f"{words}?rate=8000&seconds=0.2&features=log-spectrogram")
    again = load(words, preparation=trained.preparation)
    assert trained.preparation == {
        "kind": "sound",
        "features": "log-spectrogram",
        "rate": 8000,
        "seconds": 0.2,
    }
    assert torch.equal(again.test.inputs, trained.test.inputs)
    assert again.preparation == trained.preparation
    assert load(f"{words}?rate=8e3", preparation=trained.preparation).train.inputs.shape[2] == 80


def test_an_option_that_contradicts_the_training_is_refused_by_name(words, tmp_path):
    trained = load(f"{words}?rate=8000&seconds=0.2")
    with pytest.raises(UserError, match=r"expected rate=8000, as in training, got rate=16000"):
        load(f"{words}?rate=16000", preparation=trained.preparation)
    root = images(tmp_path / "flowers")
    trained = load(f"folder:{root}?size=8")
    with pytest.raises(UserError, match=r"expected size=8, as in training, got size=16"):
        load(f"folder:{root}?size=16", preparation=trained.preparation)


def test_images_are_resized_as_in_the_training_whatever_holds_them(tmp_path, monkeypatch):
    root = images(tmp_path / "flowers")
    trained = load(f"folder:{root}?size=8&channels=1")
    assert trained.preparation["size"] == 8
    assert load(f"folder:{root}", preparation=trained.preparation).test.inputs.shape[1:] == (
        1,
        8,
        8,
    )
    pixels = CHANCE.integers(0, 256, (8, 9, 13, 3), dtype=np.uint8)
    rows = [(Image.fromarray(p), k % 2) for k, p in enumerate(pixels)]
    monkeypatch.setitem(
        sys.modules,
        "mine",
        types.SimpleNamespace(
            pils=rows, arrays=[(np.asarray(image), label) for image, label in rows]
        ),
    )
    for name in ("pils", "arrays"):
        again = load(f"import:mine:{name}", preparation=trained.preparation, test_fraction=0.5)
        assert again.preparation == trained.preparation
        fitted = ImageOps.fit(rows[0][0].convert("L"), (8, 8), Image.Resampling.BILINEAR)
        everything = torch.cat([again.train.inputs, again.test.inputs])[:, 0]
        assert any(np.array_equal(one, fitted) for one in everything.numpy())
    np.savez(
        tmp_path / "other.npz",
        train_images=pixels[:, :8, :8],
        train_labels=np.arange(8) % 2,
        test_images=pixels[:, :8, :8],
        test_labels=np.arange(8) % 2,
    )
    with pytest.raises(
        UserError, match=r"npz:.*expected images of shape 1x8x8, as in training, got 3x8x8"
    ):
        load(f"npz:{tmp_path / 'other.npz'}", preparation=trained.preparation)
    colored = load(f"folder:{root}?size=8")
    fitting = load(f"npz:{tmp_path / 'other.npz'}", preparation=colored.preparation)
    assert fitting.preparation == colored.preparation


def test_gray_training_images_make_gray_test_images(tmp_path):
    root = images(tmp_path / "gray", size=(8, 8))
    arrays = {f"{split}_images": np.zeros((4, 8, 8), np.uint8) for split in ("train", "test")}
    labels = {f"{split}_labels": np.arange(4) % 2 for split in ("train", "test")}
    np.savez(tmp_path / "gray.npz", **arrays, **labels)
    trained = load(f"npz:{tmp_path / 'gray.npz'}")
    again = load(f"folder:{root}", preparation=trained.preparation)
    assert again.test.inputs.shape[1:] == (1, 8, 8)


def test_inputs_of_another_kind_or_range_are_refused(words, tmp_path):
    digits = load("digits")  # white is 16
    root = images(tmp_path / "small", size=(8, 8))
    with pytest.raises(UserError, match="value 16, as in training, got 255"):
        load(f"folder:{root}", preparation=digits.preparation)
    with pytest.raises(UserError, match=r"expected recordings as in training, got images"):
        load(f"folder:{root}", preparation=load(words).preparation)
    with pytest.raises(UserError, match=r"expected images as in training, got recordings"):
        load(words, preparation=digits.preparation)
    with pytest.raises(
        UserError, match=r"^iris: expected images as in training, got rows of a table"
    ):
        load("iris", preparation=digits.preparation)


def test_raw_records_take_no_options_of_encoded_ones(tmp_path):
    from vicinal.data.convert import convert

    data = load("digits")
    convert(data, tmp_path / "raw.rec", encoding="raw")
    spec = f"rec:{tmp_path / 'raw_train.rec'},{tmp_path / 'raw_test.rec'}?raw=8x8x1"
    with pytest.raises(UserError, match=r"channels is for encoded images"):
        load(f"{spec}&channels=1")
    trained = load(spec)
    assert load(spec, preparation=trained.preparation).preparation == trained.preparation
