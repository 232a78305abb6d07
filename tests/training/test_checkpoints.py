import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vicinal.errors import UserError
from vicinal.models.weights_file import load_initial_weights
from vicinal.training.checkpoints import load_weights
from vicinal.training.tensor_tree import read_tree, write_tree


def test_a_tree_is_read_as_it_was_written(tmp_path):
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    half = torch.randn(4)
    tree = {
        "nothing": None,
        "flag": True,
        "numbers": [1, 2.5, (3, "four")],
        "state": {0: {"momentum": last}, 1: {"step": torch.tensor(7)}},
        "twice": [half, half],
        "narrow": torch.randn(3).bfloat16(),
        "empty": torch.empty(0, 2),
        "strided": torch.randn(6)[::2],
    }
    write_tree(tmp_path / "tree", tree)
    back = read_tree(tmp_path / "tree")
    assert back.keys() == tree.keys()
    assert back["numbers"] == tree["numbers"]
    assert (back["nothing"], back["flag"]) == (None, True)
    assert back["state"].keys() == {0, 1}
    momentum = back["state"][0]["momentum"]
    assert torch.equal(momentum, last)
    assert momentum.stride() == last.stride()
    assert all(torch.equal(one, half) for one in back["twice"])
    assert back["narrow"].dtype == torch.bfloat16
    assert torch.equal(back["narrow"], tree["narrow"])
    assert back["empty"].shape == (0, 2)
    assert torch.equal(back["strided"], tree["strided"])


def test_a_value_that_json_cannot_hold_raises(tmp_path):
    with pytest.raises(TypeError, match="/a/b: a checkpoint cannot hold a set"):
        write_tree(tmp_path / "tree", {"a": {"b": {1}}})
    assert not (tmp_path / "tree").exists()


def test_an_error_while_writing_keeps_the_old_file(tmp_path, monkeypatch):
    write_tree(tmp_path / "tree", {"step": 1})
    monkeypatch.setattr("os.fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(UserError, match="cannot be written: No space"):
        write_tree(tmp_path / "tree", {"step": 2})
    monkeypatch.undo()
    assert read_tree(tmp_path / "tree") == {"step": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            nn.Linear(3, 4),
            r"expected \(2, 3\) for weight, got \(4, 3\)|expected \(2,\) for bias, got \(4,\)",
        ),
        (nn.Linear(3, 2, bias=False), r"expected \(2,\) for bias, got nothing"),
        (nn.Sequential(nn.Linear(3, 2)), r"expected nothing for 0.bias, got \(2,\)"),
    ],
)
def test_weights_of_another_network_raise_before_any_is_loaded(other, words):
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    with pytest.raises(
        UserError, match=f"old.safetensors belongs to a different network than Linear: .*{words}"
    ):
        load_weights(model, other.state_dict(), "old.safetensors")
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "recursion"),
        ('{"list": [' * 300 + "]}" * 300, "crc32"),
        ('{"list": [' * 900 + "]}" * 900, "recursion|crc32"),
        ("9" * 100_000, "Exceeds the limit"),
        ("3", "int"),
        (" " * (1 << 24) + "{}", "crc32"),
        ('{"mapping": [["a"]]}', "crc32"),
        ('{"mapping": [[["a"], 1]]}', "crc32"),
        ('{"tensor": "a", "channels_last": false}', "crc32"),
        ('{"tensor": ["a"], "channels_last": false}', "crc32"),
    ],
    ids=lambda value: value[:20],
)
def test_a_header_that_is_too_deep_too_long_or_invalid_raises(text, words, tmp_path):
    save_file({}, tmp_path / "evil.safetensors", {"vicinal": text})
    with pytest.raises(
        UserError, match=f"evil.safetensors: expected an undamaged checkpoint of vicinal.*({words})"
    ):
        read_tree(tmp_path / "evil.safetensors")


def test_every_bit_of_a_file_that_flips_is_noticed(tmp_path):
    tree = {"step": 3, "rates": [0.125, None], "weights": torch.randn(3, 2), "none": torch.ones(())}
    path = tmp_path / "tree"
    write_tree(path, tree)
    whole = path.read_bytes()
    before = read_tree(path)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            back = read_tree(path)
        except UserError:
            continue
        # What is left are the names that safetensors gives types, and blanks in its header.
        assert str(back) == str(before), (place, whole[max(0, place - 20) : place + 20])


class Versioned(torch.nn.Linear):
    """A layer that needs the version of its state, as batch norm and torchvision's MNASNet do."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others):
        assert local_metadata["version"] == 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


def test_layers_that_ask_for_the_version_of_their_state_get_it():
    trained = {name: value + 1 for name, value in Versioned(2, 3).state_dict().items()}
    for load in (
        lambda network: load_weights(network, trained, "a.safetensors"),
        lambda network: load_initial_weights(network, trained, origin="a.pt", log=print),
    ):
        network = Versioned(2, 3)
        load(network)
        assert torch.equal(network.weight, trained["weight"])
