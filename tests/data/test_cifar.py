import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from vicinal.data import load
from vicinal.errors import UserError

NAMES = ["cat", "dog", "owl"]


def batch(seed, count=4, **changes):
    chance = np.random.default_rng(seed)
    return {
        b"batch_label": b"batch",
        b"labels": [int(k) for k in chance.integers(0, 3, count)],
        b"data": chance.integers(0, 256, (count, 3072), dtype=np.uint8),
        b"filenames": [b"x.png"] * count,
    } | {key.encode(): value for key, value in changes.items()}


def files(**changes):
    """The files of a small CIFAR-10; a keyword replaces one."""
    contents = {f"data_batch_{k}": batch(k) for k in range(1, 6)}
    contents["test_batch"] = batch(9)
    contents["batches.meta"] = {b"label_names": [name.encode() for name in NAMES]}
    pickled = {name: pickle.dumps(value, protocol=2) for name, value in contents.items()}
    return pickled | changes


def unpacked(folder, contents):
    inside = folder / "cifar-10-batches-py"
    inside.mkdir()
    for name, content in contents.items():
        (inside / name).write_bytes(content)


def archived(folder, contents):
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("put", [unpacked, archived])
def test_batches_are_read_in_order_from_a_folder_or_an_archive(tmp_path, put):
    put(tmp_path, files())
    data = load("cifar10", root=tmp_path)
    known = [batch(k) for k in range(1, 6)]
    pixels = np.concatenate([b[b"data"] for b in known])
    assert np.array_equal(data.train.inputs.reshape(20, 3072).numpy(), pixels)
    assert data.train.targets.tolist() == [label for b in known for label in b[b"labels"]]
    assert np.array_equal(data.test.inputs.reshape(4, 3072).numpy(), batch(9)[b"data"])
    assert data.classes == tuple(NAMES)
    assert data.train.inputs.shape == (20, 3, 32, 32)


def test_nothing_is_unpacked_to_the_disk(tmp_path):
    archived(tmp_path, files())
    load("cifar10", root=tmp_path)
    assert os.listdir(tmp_path) == ["cifar-10-python.tar.gz"]


def test_cifar100_has_its_fine_labels(tmp_path):
    inside = tmp_path / "cifar-100-python"
    inside.mkdir()
    for name, seed in (("train", 1), ("test", 2)):
        content = batch(seed)
        content[b"fine_labels"] = content.pop(b"labels")
        content[b"coarse_labels"] = [0] * 4
        (inside / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {b"fine_label_names": [b"a", b"b", b"c"], b"coarse_label_names": [b"x"]}
    (inside / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    data = load("cifar100", root=tmp_path)
    assert data.classes == ("a", "b", "c")
    assert data.train.targets.tolist() == batch(1)[b"labels"]


def test_the_files_of_python_2_are_read(shared, unpack, tmp_path):
    contents = {name: unpack.python2_pickle(pickle.loads(c)) for name, c in files().items()}
    unpacked(tmp_path, contents)
    data = load("cifar10", root=tmp_path)
    assert np.array_equal(data.test.inputs.reshape(4, 3072).numpy(), batch(9)[b"data"])


def test_a_path_may_name_the_folder_the_archive_or_their_parent(tmp_path):
    archived(tmp_path, files())
    assert len(load(f"cifar10:{tmp_path}").train) == 20
    assert len(load(str(tmp_path)).train) == 20
    unpacked(tmp_path, files())
    for where in ("", "/cifar-10-batches-py", "/cifar-10-python.tar.gz"):
        assert len(load(f"cifar10:{tmp_path}{where}").train) == 20


def test_a_missing_data_set_raises_with_the_files_that_are_expected(tmp_path):
    with pytest.raises(
        UserError, match=r"cifar10 is not under .*: expected cifar-10-batches-py/ or"
    ):
        load("cifar10", root=tmp_path)
    with pytest.raises(UserError, match=r"no folder or archive of cifar10 nowhere"):
        load("cifar10:nowhere", root=tmp_path)


class Runs:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


def pickled(value):
    return pickle.dumps(value, protocol=2)


@pytest.mark.parametrize("put", [unpacked, archived])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data_batch_2": b""}, "data_batch_2"),
        ({"data_batch_2": pickled(batch(2))[:500]}, "data_batch_2"),
        ({"data_batch_2": pickled([1, 2])}, "data_batch_2: expected a dictionary.* got list"),
        ({"data_batch_2": pickled({})}, r"expected pixels \(n, 3072\) uint8"),
        (
            {"data_batch_2": pickled(batch(2, data=np.zeros((4, 9), np.uint8)))},
            "pixels .n, 3072. uint8, .*got _Array .4, 9.",
        ),
        ({"data_batch_2": pickled(batch(2, data=np.zeros((4, 3072))))}, "expected pixels"),
        ({"data_batch_2": pickled(batch(2, labels=[0, 1]))}, "a list of 4 integer labels"),
        (
            {"data_batch_2": pickled(batch(2, labels=[0, 1, 3, 0]))},
            "data_batch_2, row 2: expected a label of the 3 classes, got 3",
        ),
        ({"data_batch_2": pickled(batch(2, labels=[0, 1, -1, 0]))}, "row 2: .* got -1"),
        ({"data_batch_2": pickled(batch(2, labels=[0, 1, 0.5, 0]))}, "integer labels"),
        ({"batches.meta": pickled({b"label_names": "cat"})}, "a list of label_names"),
    ],
)
def test_files_that_are_not_from_cifar_raise_an_error_with_their_name(
    tmp_path, put, changed, message
):
    put(tmp_path, files(**changed))
    with pytest.raises(UserError, match=message) as error:
        load("cifar10", root=tmp_path)
    assert next(iter(changed)) in str(error.value)


@pytest.mark.parametrize("put", [unpacked, archived])
def test_a_pickle_that_would_run_code_raises_an_error_and_runs_nothing(tmp_path, monkeypatch, put):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, files(data_batch_3=pickled(batch(3, extra=Runs()))))
    with pytest.raises(UserError, match=r"data_batch_3"):
        load("cifar10", root=tmp_path)
    assert not (tmp_path / "it-ran").exists()
    pickle.loads(pickled(Runs()))  # it would have
    assert (tmp_path / "it-ran").exists()


def test_a_damaged_archive_raises_an_error(tmp_path):
    archived(tmp_path, files())
    path = tmp_path / "cifar-10-python.tar.gz"
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2], whole[:300] + b"!" + whole[301:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz"):
            load("cifar10", root=tmp_path)


def test_an_archive_that_lacks_a_file_or_claims_too_much_raises_an_error(tmp_path):
    contents = files()
    del contents["data_batch_5"]
    archived(tmp_path, contents)
    with pytest.raises(UserError, match=r"cifar-10-batches-py/data_batch_5 is not in the archive"):
        load("cifar10", root=tmp_path)
    entry = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    entry.size = 10**12
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(entry.tobuf()))
    with pytest.raises(
        UserError, match=r"data_batch_1: the header claims 1000000000000 bytes, which"
    ):
        load("cifar10", root=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_without_permission_raises_an_error(tmp_path):
    unpacked(tmp_path, files())
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").chmod(0)
    with pytest.raises(UserError, match=r"data_batch_4 cannot be read: Permission denied"):
        load("cifar10", root=tmp_path)


def test_a_file_of_more_than_max_bytes_raises_an_error(tmp_path):
    archived(tmp_path, files())
    with pytest.raises(UserError, match=r"expected at most 1000 bytes in memory .max_bytes"):
        load("cifar10", root=tmp_path, max_bytes=1000)


def test_a_folder_instead_of_a_file_raises_an_error(tmp_path):
    contents = files()
    del contents["data_batch_4"]
    unpacked(tmp_path, contents)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").mkdir()
    with pytest.raises(UserError, match=r"data_batch_4 cannot be read: Is a directory"):
        load("cifar10", root=tmp_path)


def test_the_checksum_at_the_end_of_the_archive_is_checked(tmp_path):
    archived(tmp_path, files())
    path = tmp_path / "cifar-10-python.tar.gz"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"tar\.gz: the archive is damaged .CRC check failed"):
        load("cifar10", root=tmp_path)
