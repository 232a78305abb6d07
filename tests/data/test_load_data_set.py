import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from vicinal.data import corrupt_labels, load, normalization_of
from vicinal.data.dataset import ReadResult, Split
from vicinal.data.normalize import statistics
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError


def test_the_splits_of_digits_hold_every_scan_once_with_its_label():
    data = load("digits", test_fraction=0.3, seed=0)
    splits = [data.train, data.test]
    ours = sorted(
        (int(label), image.tobytes())
        for split in splits
        for image, label in zip(split.inputs.numpy(), split.targets, strict=True)
    )
    known = load_digits()
    theirs = sorted(
        (int(label), image.astype(np.uint8).tobytes())
        for image, label in zip(known.images, known.target, strict=True)
    )
    assert ours == theirs


def test_every_class_has_the_same_share_of_test_examples():
    data = load("digits", test_fraction=0.3, seed=0)
    whole = data.train.targets.bincount() + data.test.targets.bincount()
    assert bool((data.test.targets.bincount() / whole - 0.3).abs().max() < 0.005)


def test_the_seed_decides_the_split():
    first, again, other = (load("digits", test_fraction=0.3, seed=s).test.inputs for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_normalization_depends_on_the_training_split_only():
    data = load("digits", test_fraction=0.3, seed=0)
    by = normalization_of(data.train)
    train, test = (by.apply(split.inputs, torch.empty(0)) for split in (data.train, data.test))
    assert train.mean().item() == pytest.approx(0, abs=1e-5)
    assert train.std().item() == pytest.approx(1, abs=1e-3)
    back = test * data.train.inputs.float().std() + data.train.inputs.float().mean()
    torch.testing.assert_close(back, data.test.inputs.float(), atol=1e-2, rtol=0)


def test_an_unknown_source_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"'digit'. Did you mean 'digits'"):
        load("digit", test_fraction=0.3, seed=0)


def test_a_split_that_leaves_a_class_out_is_refused():
    with pytest.raises(UserError, match=r"test fraction of 0.001 cannot split 1797"):
        load("digits", test_fraction=0.001, seed=0)


def test_corruption_replaces_just_the_fraction_and_keeps_its_argument():
    labels = torch.arange(1000) % 10
    before = labels.clone()
    corrupted, replaced = corrupt_labels(labels, rate=0.4, num_classes=1000, seed=0)
    # With a thousand classes a random label is right once in a thousand times.
    assert 395 <= int((corrupted != labels).sum()) <= 400
    assert torch.equal(labels, before)
    assert int(replaced.sum()) == 400
    assert bool(replaced[corrupted != labels].all())


def test_corrupted_labels_are_drawn_from_all_classes_evenly():
    corrupted = corrupt_labels(
        torch.zeros(50_000, dtype=torch.int64), rate=1, num_classes=5, seed=1
    ).labels
    assert bool(((corrupted.bincount() / 10_000 - 1).abs() < 0.05).all())


def test_the_seed_decides_the_corruption():
    labels = torch.zeros(100, dtype=torch.int64)
    first, again, other = (
        corrupt_labels(labels, rate=0.5, num_classes=10, seed=s).labels for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(corrupt_labels(labels, rate=0, num_classes=10, seed=0).labels, labels)


@pytest.mark.parametrize(("rare", "fraction"), [(2, 0.2), (2, 0.8), (1, 0.5)])
def test_a_class_too_small_for_both_splits_raises_an_error_with_its_name(rare, fraction):
    targets = torch.tensor([0] * 50 + [1] * rare)
    with pytest.raises(UserError, match=rf"smallest class, owl, has {rare}\. Try another"):
        train_test_rows(targets, fraction=fraction, seed=0, classes=["cat", "owl"])
    train, test = train_test_rows(torch.tensor([0, 1] * 4), fraction=0.5, seed=0)
    assert sorted([*train, *test]) == list(range(8))


@pytest.mark.parametrize("stored", [False, True])
def test_statistics_are_joined_from_pieces(monkeypatch, stored):
    monkeypatch.setattr("vicinal.data.normalize._PIECE", 1000)
    chance = torch.Generator().manual_seed(0)
    inputs = torch.randn(90, 2, 7, 5, generator=chance) * 3 + 1e4

    class Files:
        shape, dtype = inputs.shape, inputs.dtype

        def read(self, rows):
            assert len(rows) * 2 * 7 * 5 * 4 <= 1000
            return ReadResult(inputs[rows], np.arange(len(rows)), [])

    for values in (inputs, (inputs * 4).remainder(256).byte()):
        split = Split(Files() if stored and values is inputs else values, torch.zeros(90))
        found = statistics(split)
        wide = values.double().numpy()
        np.testing.assert_allclose(found.mean, wide.mean((0, 2, 3)))
        np.testing.assert_allclose(found.std, wide.std((0, 2, 3)))
        assert (found.lowest, found.highest) == (wide.min(), wide.max())
        assert found.examples == 90


def test_large_images_in_files_are_sampled_within_a_limit(monkeypatch):
    monkeypatch.setattr("vicinal.data.normalize._MOST", 10 * 48)
    seen = []

    class Files:
        shape, dtype = (100, 3, 4, 4), torch.uint8

        def read(self, rows):
            seen.extend(rows)
            return ReadResult(torch.zeros(len(rows), 3, 4, 4).byte(), np.arange(len(rows)), [])

    assert statistics(Split(Files(), torch.zeros(100))).examples == 10
    assert (seen[0], seen[-1], len(seen)) == (0, 99, 10)


def test_a_seed_or_a_home_that_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"seed: expected an integer from 0 to .* got -1"):
        load("digits", seed=-1)
    with pytest.raises(UserError, match=r"there is no such user"):
        load("cifar10", root="~nobody-of-this-name/data")


def test_classes_of_the_same_name_are_numbered(tmp_path):
    inputs, labels = np.random.default_rng(0).random((12, 3)), np.arange(12) % 3
    names = np.array(["crane", "dog", "crane"])
    np.savez(tmp_path / "birds.npz", x=inputs, y=labels, classes=names)
    data = load("npz:birds.npz", root=tmp_path, test_fraction=0.5)
    assert data.classes == ("crane (0)", "dog", "crane (2)")
    assert any("which got numbers: crane" in note.text for note in data.notes)


def test_a_seed_and_a_fold_of_another_type_are_refused():
    with pytest.raises(UserError, match=r"seed: expected an integer from 0 .*, got 0\.5"):
        load("digits", seed=0.5)
    with pytest.raises(UserError, match=r"fold: expected \(k, folds\) .*, got \(0, 5, 1\)"):
        load("digits", fold=(0, 5, 1))
    assert len(load("digits", seed=np.int64(1)).train) > 0


def test_a_table_to_test_on_is_not_doubted_for_its_empty_training_split(tmp_path):
    for name, start in (("one", 0), ("two", 7)):
        rows = "".join(f"{k + start},{'ab'[k % 2]}\n" for k in range(60))
        (tmp_path / f"{name}.csv").write_text(f"x,label\n{rows}")
    trained = load("table:one.csv?label=label", root=tmp_path)
    other = load("table:two.csv?label=label", root=tmp_path, preparation=trained.preparation)
    assert (len(other.train), len(other.test)) == (0, 60)
    assert [note.text for note in other.notes if note.doubtful] == []
