import dataclasses
import random
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from vicinal.data import DataSet, Split, load
from vicinal.data.description import doubtful_notes
from vicinal.data.train_test_split import group_notes, kept_rows, train_test_rows, with_validation
from vicinal.errors import UserError


def example_set(split):
    """Return the examples of a split as a multiset, to compare splits of any order."""
    inputs = split.read(range(len(split))).inputs
    return Counter(
        (*x.flatten().tolist(), y) for x, y in zip(inputs, split.targets.tolist(), strict=True)
    )


@pytest.fixture
def patients(tmp_path):
    """Write 40 patients of one to eleven rows and two classes; return the path."""
    chance = random.Random(0)
    rows = ["dose,patient,ill,score"]
    sizes = [chance.randint(1, 11) for _ in range(40)]
    for patient, size in enumerate(sizes):
        for _ in range(size):
            ill = "yes" if chance.random() < 0.3 + 0.4 * (patient % 2) else "no"
            rows.append(f"{len(rows)},p{patient},{ill},{chance.random():.6f}")
    path = tmp_path / "patients.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("spec", ["digits", "iris"])
def test_every_example_is_tested_in_exactly_one_fold(spec):
    folds = [load(spec, fold=(k, 4)) for k in range(4)]
    whole = example_set(folds[0].train) + example_set(folds[0].test)
    if spec == "digits":  # tables are normalized by the training split of each fold
        assert sum((example_set(data.test) for data in folds), Counter()) == whole
    for data in folds:
        counts = data.train.targets.bincount(), data.test.targets.bincount()
        assert bool((counts[1] * 4 - sum(counts)).abs().max() < 4)
    assert sum(len(data.test) for data in folds) == sum(whole.values())


def test_the_folds_of_another_seed_are_others():
    first, again, other = (load("digits", fold=(1, 3), seed=s).test.inputs for s in (0, 0, 7))
    assert torch.equal(first, again)
    assert not torch.equal(first[:500], other[:500])


def test_every_fold_has_the_same_share_of_every_quantile_of_a_real_value():
    values = torch.randn(1003, generator=torch.Generator().manual_seed(0)).exp()
    edges = np.quantile(values.numpy(), np.linspace(0, 1, 11)[1:-1])
    tested = []
    for k in range(5):
        train, test = train_test_rows(values, fraction=0.2, seed=3, fold=(k, 5))
        assert sorted([*train, *test]) == list(range(1003))
        counts = np.bincount(np.searchsorted(edges, values[test].numpy()), minlength=10)
        assert counts.min() >= 18
        assert counts.max() <= 22
        tested += test.tolist()
    assert sorted(tested) == list(range(1003))


def test_folds_of_vectors_hold_every_row_once():
    tested = [
        row
        for k in range(3)
        for row in train_test_rows(torch.zeros(10, 2), fraction=0.2, seed=0, fold=(k, 3))[1]
    ]
    assert sorted(tested) == list(range(10))


@pytest.mark.parametrize("fold", [None, (0, 4), (3, 4)])
@pytest.mark.parametrize("label", ["ill", "score"])
def test_the_rows_of_a_group_are_in_one_split(patients, fold, label):
    lines = patients.read_text().splitlines()[1:]
    data = load(
        f"table:{patients}?label={label}&group=patient&drop={'score' if label == 'ill' else 'ill'}",
        fold=fold,
        validation_fraction=0.2,
    )
    assert sum(map(len, data.splits.values())) == len(lines)
    # A row's dose is its number.
    doses = torch.cat([split.inputs[:, 0] for split in data.splits.values()])
    mean, scale = (data.preparation["numbers"][key][0] for key in ("mean", "scale"))
    owners = [lines[round(dose * scale + mean) - 1].split(",")[1] for dose in doses.tolist()]
    sets, start = [], 0
    for split in data.splits.values():
        sets.append(set(owners[start : start + len(split)]))
        start += len(split)
    assert len(sets) == 3
    assert sum(map(len, sets)) == len(set.union(*sets)) == 40
    assert data.train.inputs.shape[1] == 1  # the patient is not an input


def test_a_split_of_groups_is_near_the_fraction_in_every_class():
    chance = np.random.default_rng(0)
    owners = torch.from_numpy(chance.integers(0, 60, 3000))
    labels = torch.from_numpy(chance.integers(0, 3, 3000))
    for seed in range(5):
        train, test = train_test_rows(labels, fraction=0.3, seed=seed, groups=owners)
        assert not set(owners[train].tolist()) & set(owners[test].tolist())
        shares = labels[test].bincount() / labels.bincount()
        assert bool((shares - 0.3).abs().max() <= 0.25 * 0.3 + 1e-6)
        assert sorted([*train, *test]) == list(range(3000))
    draws = [
        tuple(train_test_rows(labels, fraction=0.3, seed=s, groups=owners)[1]) for s in range(5)
    ]
    assert len(set(draws)) == 5


def test_a_group_that_tells_the_class_is_an_error_that_names_the_class():
    labels = torch.tensor([0, 1] * 20)
    with pytest.raises(UserError, match=r"2 groups, and the class cat is in 1 of them"):
        train_test_rows(labels, fraction=0.2, seed=0, groups=labels, classes=("cat", "dog"))
    with pytest.raises(UserError, match=r"^5 folds cannot split 40 examples .* There are 2 groups"):
        train_test_rows(labels, fraction=0.2, seed=0, groups=labels, fold=(0, 5))


def test_groups_of_one_row_each_change_nothing_and_are_reported(tmp_path):
    rows = [f"{i},{i * i % 7},{'ab'[i % 2]}" for i in range(60)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["id,x,y", *rows]) + "\n")
    grouped, plain = (load(f"table:{path}?label=y&{option}=id") for option in ("group", "drop"))
    assert torch.equal(grouped.test.inputs, plain.test.inputs)
    (note,) = set(grouped.notes) - set(plain.notes)
    assert note.doubtful
    assert note.text.startswith("each of the 60 examples is a group of its own")


def test_a_group_in_the_files_of_both_splits_is_an_error(tmp_path):
    for name, owners in (("train", "aabb"), ("test", "bbcc")):
        lines = [f"{i},{owner},{'xy'[i % 2]}" for i, owner in enumerate(owners)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["n,owner,y", *lines]) + "\n")
    spec = f"table:{tmp_path}/train.csv?test={tmp_path}/test.csv&label=y"
    assert load(spec).fixed_test
    with pytest.raises(UserError, match=r"^group: .* got 1 of the 2 groups of the test split"):
        load(f"{spec}&group=owner")


def test_wrong_columns_and_missing_cells_of_groups_are_errors(patients):
    with pytest.raises(UserError, match=r"^group: expected columns other than the label"):
        load(f"table:{patients}?label=ill&group=ill")
    with pytest.raises(UserError, match=r"there is no column 'patent'. Did you mean"):
        load(f"table:{patients}?label=ill&group=patent")
    patients.write_text(patients.read_text().replace("p7,", ",", 1))
    with pytest.raises(UserError, match=r"row \d+: the group 'patient' is missing"):
        load(f"table:{patients}?label=ill&group=patient")
    data = load(f"table:{patients}?label=ill&group=patient", skip_bad=True)
    assert len(data.train.skipped) == 1


def test_the_training_data_is_split_by_group_again_for_a_score(patients):
    data = load(f"table:{patients}?label=ill&group=patient", seed=5)
    again = load(f"table:{patients}?label=ill", seed=5, preparation=data.preparation)
    assert torch.equal(again.test.inputs, data.test.inputs)
    assert torch.equal(again.test.groups, data.test.groups)
    with pytest.raises(UserError, match=r"^group=dose: expected group=patient, as in training"):
        load(f"table:{patients}?label=ill&group=dose", seed=5, preparation=data.preparation)
    plain = load(f"table:{patients}?label=ill", seed=5)
    with pytest.raises(UserError, match=r"^group=dose: expected no groups, as in training"):
        load(f"table:{patients}?label=ill&group=dose", preparation=plain.preparation)


def test_a_validation_split_is_cut_from_the_training_rows_and_never_from_the_test_split():
    plain = load("digits", test_fraction=0.3)
    cut = load("digits", test_fraction=0.3, validation_fraction=0.25)
    assert torch.equal(plain.test.inputs, cut.test.inputs)
    assert example_set(cut.train) + example_set(cut.validation) == example_set(plain.train)
    shares = cut.validation.targets.bincount() / plain.train.targets.bincount()
    assert bool((shares - 0.25).abs().max() < 0.01)


def test_a_share_of_the_training_rows_keeps_classes_and_test_rows():
    plain = load("digits", test_fraction=0.3)
    few = load("digits", test_fraction=0.3, train_fraction=0.1)
    assert torch.equal(plain.test.inputs, few.test.inputs)
    assert not example_set(few.train) - example_set(plain.train)
    assert len(few.train) == 127  # a tenth of each class, rounded
    shares = few.train.targets.bincount() / plain.train.targets.bincount()
    assert bool((shares - 0.1).abs().max() < 0.01)
    assert "10% of the training examples are used" in few.notes[-1].text
    cut = load("digits", test_fraction=0.3, train_fraction=0.1, validation_fraction=0.5)
    assert example_set(cut.train) + example_set(cut.validation) == example_set(few.train)


@pytest.mark.parametrize(
    ("counts", "share", "kept"),
    [
        ([10_000, 99], 0.01, [100, 1]),
        ([24, 26, 1], 0.04, [1, 1, 1]),
        ([40, 40, 40], 0.99, [40, 40, 40]),
        ([10, 0, 5], 0.7, [7, 0, 4]),
        ([3, 3], 1e-17, [1, 1]),
    ],
)
def test_every_class_keeps_the_same_share_and_at_least_one_example(counts, share, kept):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]
    rows = kept_rows(y, share, seed=3)
    assert y[rows].bincount(minlength=len(counts)).tolist() == kept
    assert (np.diff(rows) > 0).all()
    others = [kept_rows(y, share, seed=seed) for seed in range(9)]
    assert (len({tuple(one) for one in others}) == 1) == (kept == counts)


def test_a_share_of_groups_keeps_whole_groups():
    groups = torch.tensor([7] * 150 + [k // 5 for k in range(50)])
    for seed in range(5):
        rows = kept_rows(torch.rand(200), 0.1, seed, groups)
        ids, counts = np.unique(groups.numpy()[rows], return_counts=True)
        assert all(
            count == int((groups == one).sum()) for one, count in zip(ids, counts, strict=True)
        )
        assert len(rows) in range(15, 26) or 7 in ids
    with pytest.raises(UserError, match=r"train_fraction: .* leaves out all groups of class 'dog'"):
        kept_rows(torch.tensor([0] * 9 + [1]), 0.5, 0, torch.arange(10) // 9, ("cat", "dog"))


def test_the_preparation_of_a_table_sees_the_share_of_rows_that_is_used_only(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["x,y", *(f"{i * i},{'ab'[i % 2]}" for i in range(80))]) + "\n")
    whole = load(f"table:{path}?label=y")
    data = load(f"table:{path}?label=y", train_fraction=0.25)
    assert (len(whole.train), len(data.train), len(data.test)) == (64, 16, len(whole.test))
    mean, scale = (data.preparation["numbers"][key][0] for key in ("mean", "scale"))
    assert (data.train.inputs[:, 0] * scale + mean).mean().item() == pytest.approx(mean, abs=1e-3)
    assert mean != whole.preparation["numbers"]["mean"][0]


def test_the_preparation_of_a_table_does_not_see_its_validation_rows(tmp_path):
    rows = [f"{100 if i == 3 else i % 5},{'ab'[i % 2]}" for i in range(80)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["x,y", *rows]) + "\n")
    seen = set()
    for seed in range(12):
        data = load(f"table:{path}?label=y", seed=seed, validation_fraction=0.4)
        assert not any("validation" in note.text for note in data.notes)
        mean, scale = (data.preparation["numbers"][key][0] for key in ("mean", "scale"))
        raw = {name: split.inputs[:, 0] * scale + mean for name, split in data.splits.items()}
        assert raw["train"].mean().item() == pytest.approx(mean, abs=1e-4)
        seen |= {name for name, values in raw.items() if values.max() > 50}
    assert seen == {"train", "validation", "test"}


def test_small_classes_stay_in_the_training_split_when_a_validation_split_is_cut():
    x, y = torch.arange(53.0)[:, None], torch.tensor([0] * 25 + [1] * 25 + [2] * 3)
    data = DataSet(("a", "b", "rare"), Split(x, y, ("bad.png",)), Split(x, y))
    cut = with_validation(data, 0.2, seed=0)
    assert cut.train.targets.bincount().tolist() == [20, 20, 3]
    assert cut.validation.targets.bincount().tolist() == [5, 5]
    assert (cut.train.skipped, cut.validation.skipped) == (("bad.png",), ())


def test_the_groups_of_a_rare_class_stay_in_the_training_split():
    labels = torch.tensor([0, 1] * 30 + [2, 0])
    owners = torch.tensor([i // 4 for i in range(60)] + [99, 99])
    train, test = train_test_rows(
        labels, fraction=0.2, seed=0, groups=owners, keep_small=True, held_out="validation"
    )
    assert {60, 61} <= set(train.tolist())
    assert len(test)
    assert not set(owners[train].tolist()) & set(owners[test].tolist())
    for k in range(3):
        train, test = train_test_rows(
            labels, fraction=0.2, seed=0, groups=owners, fold=(k, 3), keep_small=True
        )
        assert {60, 61} <= set(train.tolist())
        assert len(test) == 20


def test_a_large_group_is_a_test_group_only_if_the_fraction_allows_it():
    sizes = torch.tensor([50, 10, 10, 10, 10, 10])
    owners, labels = torch.arange(6).repeat_interleave(sizes), torch.arange(100) % 2
    for seed in range(10):
        _, test = train_test_rows(labels, fraction=0.2, seed=seed, groups=owners)
        assert len(test) == 20


def test_an_own_validation_split_is_kept_with_a_note():
    x, y = torch.zeros(40, 1), torch.tensor([0, 1] * 20)
    data = DataSet(("a", "b"), Split(x, y), Split(x, y), Split(x[:2], y[:2]))
    cut = with_validation(data, 0.2, seed=0)
    assert (len(cut.train), len(cut.validation)) == (40, 2)
    assert cut.notes[-1].text.startswith("the validation split is that of the data set")


def test_a_data_set_with_a_test_split_of_its_own_has_no_folds(tmp_path):
    values = {}
    for name in ("train", "test"):
        values[f"{name}_images"] = np.zeros((4, 2, 2, 1), np.uint8)
        values[f"{name}_labels"] = np.array([0, 1, 0, 1])
    np.savez(tmp_path / "own.npz", **values)
    with pytest.raises(UserError, match=r"^fold: npz:.* has a test split of its own"):
        load(f"npz:{tmp_path}/own.npz", fold=(0, 2))
    assert load(f"npz:{tmp_path}/own.npz").fixed_test
    assert not load("digits").fixed_test


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"fold": (5, 5)}, r"fold: expected \(k, folds\) with 0 <= k < folds"),
        ({"fold": (0, 1)}, r"fold: expected"),
        (
            {"fold": (0, 175)},
            r"^175 folds cannot split 1797 .* smallest class, 8, has 174\. Try few",
        ),
        ({"validation_fraction": 1}, r"validation_fraction: expected a share from 0 to below 1"),
        ({"train_fraction": 0}, r"train_fraction: expected a share above 0, up to 1, got 0"),
        ({"validation_fraction": 1e-4}, r"^a validation fraction of 0.0001 cannot split"),
    ],
)
def test_folds_and_fractions_that_cannot_be_are_errors(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        load("digits", **arguments)


@pytest.fixture
def words(tmp_path):
    """Write recordings of two words by five speakers; return the folder."""
    for word in ("no", "yes"):
        (tmp_path / word).mkdir()
        for speaker in "abcde":
            for k in range(4):
                wave = np.full(400, ord(speaker) / 200)
                soundfile.write(tmp_path / word / f"{speaker}_nohash_{k}.wav", wave, 8000)
    return tmp_path


def test_the_recordings_of_a_speaker_are_in_one_split(words):
    options = "features=wave&rate=8000&seconds=0.05"
    plain = load(f"commands:{words}?{options}")
    (note,) = [note for note in plain.notes if "speakers" in note.text]
    assert note.doubtful
    data = load(f"commands:{words}?{options}&group=speaker", validation_fraction=0.3)
    voices = [set(split.inputs[:, 0].tolist()) for split in data.splits.values()]
    assert sum(map(len, voices)) == len(set.union(*voices)) == 5
    (words / "no" / "other.wav").write_bytes((words / "no" / "a_nohash_0.wav").read_bytes())
    with pytest.raises(UserError, match=r"other.wav: group=speaker expects names"):
        load(f"commands:{words}?{options}&group=speaker")


def test_groups_move_with_the_rows_of_a_split():
    split = Split(torch.arange(5.0)[:, None], torch.arange(5), groups=torch.arange(5) * 10)
    assert split.subset(torch.tensor([4, 1])).groups.tolist() == [40, 10]
    assert split.share(1, 2).groups.tolist() == [30, 40]
    assert split.to("cpu").groups.tolist() == [0, 10, 20, 30, 40]


def test_groups_of_a_training_split_that_is_empty_are_not_compared():
    x = torch.zeros(4, 1)
    empty = Split(x[:0], x[:0, 0], groups=torch.zeros(0, dtype=torch.int64))
    test = Split(x, x[:, 0], groups=torch.tensor([0, 0, 1, 1]))
    assert [note.text for note in group_notes(DataSet((), empty, test))] == [
        "groups: 2 in the test split, none in two splits"
    ]


def test_small_test_splits_and_constant_targets_are_doubtful():
    x = torch.arange(40.0)[:, None]
    whole = Split(x, torch.arange(40.0))
    others = Split(x + 0.5, torch.arange(40.0))
    assert doubtful_notes(DataSet((), whole, others)) == ()
    small = Split(x[:19] + 0.5, torch.arange(19.0))
    (note,) = doubtful_notes(DataSet((), whole, small))
    assert (note.text, note.doubtful) == ("the test split has only 19 examples", True)
    constant = Split(x, torch.full((40,), 2.5))
    (note,) = doubtful_notes(DataSet((), constant, others))
    assert note.text == "all training targets are the same, 2.5"


def test_copies_of_training_examples_in_the_test_split_are_counted():
    x = torch.arange(400, dtype=torch.uint8).view(-1, 1, 2, 2)
    assert len(x.unique(dim=0)) == 64  # 100 rows repeat after 64
    train, y = x[:64], torch.arange(64) % 2
    test = torch.cat([x[:3], 255 - x[:37].flip(3)])
    data = DataSet(("a", "b"), Split(train, y), Split(test, y[:40]), brightest=255)
    (note,) = doubtful_notes(data)
    assert note.text.startswith("3 of 40 test examples have the same inputs as a training example")
    apart = dataclasses.replace(data, test=Split(test[3:], y[:37]))
    assert doubtful_notes(apart) == ()
    # Rows of a table are equal by chance.
    rows = torch.arange(64)[:, None].float()
    table = DataSet(("a", "b"), Split(rows, y), Split(rows[:40], y[:40]))
    assert doubtful_notes(table) == ()
    waves = dataclasses.replace(table, preparation={"kind": "sound"})
    assert doubtful_notes(waves)[0].text.startswith("40 of 40 test examples")


def test_a_label_that_is_different_in_every_row_is_an_error(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name,x\n" + "".join(f"n{i},{i % 3}\n" for i in range(30)))
    with pytest.raises(
        UserError, match=r"expected classes that have several rows each, got 30 diff"
    ):
        load(f"table:{path}?label=name")


def test_an_empty_class_is_not_called_the_smallest_one(tmp_path):
    labels = np.array([1] * 20 + [3] * 20 + [4])
    np.savez(tmp_path / "gap.npz", x=np.random.default_rng(0).random((41, 2)), y=labels)
    with pytest.raises(UserError, match="smallest class, 4, has 1"):
        load(f"npz:{tmp_path}/gap.npz")
