import hashlib
import importlib
import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vicinal.data import DataSet, ReadResult, Split, load
from vicinal.errors import UserError
from vicinal.studies.study import Study
from vicinal.training.origin import (
    check_unchanged,
    data_facts,
    network_facts,
    origin_differences,
    source_hashes,
)
from vicinal.training.recipe import load_resolved

pytestmark = pytest.mark.usefixtures("without_figures")

TABLE = "x,y,label\n" + "".join(
    f"{k % 7},{k % 5 + 10 * (k % 2)},{'even' if k % 2 == 0 else 'odd'}\n" for k in range(200)
)


@pytest.fixture
def table_recipe(small_recipe, tmp_path):
    """Write a table and a recipe about it, and return both paths."""
    table = tmp_path / "t.csv"
    table.write_text(TABLE)
    changes = {"data.source": f"table:{table}?label=label", "model.name": "mlp"}
    changes |= {"arms.mixup-features": None, "corrupted_labels": [0.0], "seeds": 1}
    changes |= {"training.epochs": 1, "training.checkpoint_every": 1}
    return table, small_recipe(changes)


def add_seeds(vicinal, recipe, out):
    refused = vicinal("study", recipe, "--out", out, "--seeds", 2)
    assert refused.exit_code == 2, refused.stdout
    assert len(list((out / "trials").iterdir())) == 2  # nothing was trained
    return refused.stderr


def test_a_study_refuses_more_seeds_once_half_of_the_rows_are_gone(table_recipe, tmp_path, vicinal):
    table, recipe = table_recipe
    assert vicinal("study", recipe, "--out", tmp_path / "s").exit_code == 0
    table.write_text("\n".join(TABLE.splitlines()[:101]) + "\n")
    words = add_seeds(vicinal, recipe, tmp_path / "s")
    assert "data.train.examples was 140 and is 70" in words
    assert "data.test.of_each_class was [30, 30] and is [15, 15]" in words


def test_a_study_refuses_more_seeds_once_labels_are_flipped(table_recipe, tmp_path, vicinal):
    table, recipe = table_recipe
    assert vicinal("study", recipe, "--out", tmp_path / "s").exit_code == 0
    flipped = TABLE.replace("even", "?").replace("odd", "even").replace("?", "odd")
    table.write_text(flipped)
    words = add_seeds(vicinal, recipe, tmp_path / "s")
    assert "data.test.sha256 has changed; data.train.sha256 has changed)" in words


def test_a_study_refuses_more_seeds_once_a_package_changed(
    table_recipe, tmp_path, vicinal, monkeypatch
):
    _, recipe = table_recipe
    assert vicinal("study", recipe, "--out", tmp_path / "s").exit_code == 0
    changed = {"torch": "99.0", "python": "4"}
    monkeypatch.setattr("vicinal.training.origin.versions", lambda: changed)
    words = add_seeds(vicinal, recipe, tmp_path / "s")
    assert "versions.torch was" in words
    assert "is '99.0'" in words
    assert "python" not in words.replace(str(tmp_path), "")


NETWORK = """
from torch import nn

from parts19 import width


def net(shape, classes):
    layers = nn.Linear(64, width), nn.{layer}(), nn.Linear(width, classes)
    return nn.Sequential(nn.Flatten(), *layers)
"""


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    """Return a function that writes a module with a network, and forgets what was imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)

    def write(*, layer="ReLU", width=16):
        (tmp_path / "parts19.py").write_text(f"width = {width}\n")
        (tmp_path / "net19.py").write_text(NETWORK.format(layer=layer))
        for name in ("net19", "parts19"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()

    return write


def test_a_study_refuses_more_seeds_once_the_code_of_its_network_changed(
    own_network, small_recipe, tmp_path, vicinal
):
    own_network()
    changes = {"model.name": "net19:net", "arms.mixup-features": None, "corrupted_labels": [0.0]}
    recipe = small_recipe(changes | {"seeds": 1, "training.epochs": 1})
    done = vicinal("study", recipe, "--out", tmp_path / "s")
    assert done.exit_code == 0, done.output
    own_network(layer="Tanh")  # which has the same parameters
    assert "network.source.net19.py has changed)" in add_seeds(vicinal, recipe, tmp_path / "s")
    own_network(width=17)
    words = add_seeds(vicinal, recipe, tmp_path / "s")
    assert "network.source.parts19.py has changed" in words
    assert "network.tensors has changed" in words
    own_network()
    done = vicinal("study", recipe, "--out", tmp_path / "s", "--seeds", 2)
    assert done.exit_code == 0, done.output


def test_a_training_does_not_resume_with_flipped_labels(
    table_recipe, tmp_path, vicinal, monkeypatch
):
    table, recipe = table_recipe
    recipe.write_text(recipe.read_text().replace("epochs = 1", "epochs = 3"))
    words = ["train", recipe, "--arm", "erm", "--out", tmp_path / "t", "--logger", "none"]
    with monkeypatch.context() as broken:
        broken.setattr("vicinal.training.trial._measure", stop_at(2))
        assert vicinal(*words).exit_code == 1
    assert (tmp_path / "t" / "state.safetensors").exists()
    table.write_text(TABLE.replace("even", "?").replace("odd", "even").replace("?", "odd"))
    refused = vicinal(*words, "--resume")
    assert refused.exit_code == 2
    assert "data.test.sha256 has changed" in refused.stderr
    table.write_text(TABLE)
    done = vicinal(*words, "--resume")
    assert done.exit_code == 0, done.stderr


def stop_at(epoch):
    from vicinal.training.trial import _measure

    def measure(*parts, **settings):
        if parts[-1].epoch == epoch:
            raise RuntimeError("stopped by the test")
        return _measure(*parts, **settings)

    return measure


def test_every_result_and_checkpoint_records_its_origin(finished_study):
    from vicinal.training.tensor_tree import read_tree

    study = Study(load_resolved(finished_study / "recipe.toml"), finished_study)
    for trial, result in study.results().items():
        facts = result.origin["data"]
        assert (facts["train"]["examples"], facts["test"]["examples"]) == (1257, 540)
        assert facts["classes"] == [str(k) for k in range(10)]
        outputs = study.outputs(trial, {trial: result})
        assert (outputs.last.argmax(1) == outputs.targets).mean() == result.test_metric
        about = read_tree(study.trial_folder(trial) / "checkpoint.safetensors")["info"]
        assert json.loads(json.dumps(about["origin"])) == result.origin


class InFiles:
    """Inputs that are made up when they are read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, tuple(values.shape), values.dtype
        self.asked = 0

    def read(self, rows):
        self.asked += len(rows)
        return ReadResult(self.values[list(rows)], np.arange(len(rows)), [])


def data_of(inputs, targets=None):
    targets = torch.arange(len(inputs if hasattr(inputs, "read") is False else inputs.values)) % 2
    part = Split(inputs, targets)
    return DataSet(("a", "b"), part, part)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_the_hash_of_a_split_sees_each_value_and_not_its_strides(dtype):
    x = torch.arange(24).reshape(4, 6).to(dtype)
    facts = data_facts(data_of(x))["train"]["sha256"]
    assert data_facts(data_of(x.t().contiguous().t()))["train"]["sha256"] == facts
    other = x.clone()
    other[3, 5] += 1
    assert data_facts(data_of(other))["train"]["sha256"] != facts


def test_targets_of_any_stride_have_the_hash_of_their_values():
    x = torch.rand(9, 2)
    for count in (3, 1):
        every_third = torch.arange(9)[:: 9 // count]
        split = Split(x[:count], every_third % 2)
        strided = Split(x[:count], (torch.arange(9) % 2)[:: 9 // count])
        both = (data_facts(DataSet(("a", "b"), one, one))["train"] for one in (split, strided))
        assert next(both) == next(both)


def test_an_even_sample_of_inputs_in_files_is_hashed():
    stored = InFiles(torch.arange(3000).view(1000, 3).float())
    data = data_of(stored)
    facts = data_facts(data)
    assert data_facts(data) is facts  # worked out once
    changed = InFiles(stored.values.clone())
    changed.values[0] += 1
    assert stored.asked <= 4 * 256
    assert data_facts(data_of(changed))["train"]["sha256"] != facts["train"]["sha256"]


def test_the_fingerprint_of_a_network_sees_names_shapes_and_dtypes():
    facts = network_facts(nn.Linear(2, 3), "mlp")
    for other in (nn.Linear(3, 2), nn.Linear(2, 3).double(), nn.Sequential(nn.Linear(2, 3))):
        assert network_facts(other, "mlp")["tensors"] != facts["tensors"]
    nn.init.zeros_((same := nn.Linear(2, 3)).weight)
    assert network_facts(same, "mlp") == facts


def test_the_source_of_a_network_in_a_package_has_what_it_imports_from_there(tmp_path, monkeypatch):
    files = {
        "pack19/__init__.py": "",
        "pack19/nets/__init__.py": "from . import blocks",
        "pack19/nets/blocks.py": "from ..sizes import width\nimport pack19.more",
        "pack19/sizes.py": "import torch\nwidth = 3",
        "pack19/more.py": "",
        "pack19/unused.py": "",
        "torch19.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("pack19.nets.blocks")
    hashes = source_hashes("pack19.nets.blocks:net")
    used = [name for name in files if name.startswith("pack19") and "unused" not in name]
    assert sorted(hashes) == sorted(used)
    assert (
        hashes["pack19/sizes.py"] == hashlib.sha256(files["pack19/sizes.py"].encode()).hexdigest()
    )


def test_a_source_file_that_only_one_origin_has_is_a_difference():
    def origin(**source):
        return {"network": {"source": source}}

    assert "network.source.data" in origin_differences(origin(net="1", data="2"), origin(net="1"))
    assert "network.source.data" in origin_differences(origin(net="1"), origin(net="1", data="2"))


def test_files_that_are_imported_late_or_become_packages_are_hashed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "net40.py").write_text(
        "from torch import nn\nfrom parts40 import width\n"
        "def late():\n    import help40\n    return help40\n"
        "def network(inputs, classes):\n    return nn.Linear(width, classes)\n"
    )
    (tmp_path / "parts40.py").write_text("width = 4\n")
    (tmp_path / "help40.py").write_text("scale = 1\n")
    importlib.import_module("net40")
    before = source_hashes("net40:network")
    assert before.keys() == {"net40.py", "parts40.py", "help40.py"}
    del sys.modules["net40"], sys.modules["parts40"]  # as in another process
    (tmp_path / "help40.py").write_text("scale = 2\n")
    (tmp_path / "parts40.py").unlink()
    (tmp_path / "parts40").mkdir()
    (tmp_path / "parts40" / "__init__.py").write_text("width = 4\n")
    importlib.invalidate_caches()
    importlib.import_module("net40")
    after = source_hashes("net40:network")
    assert before["help40.py"] != after["help40.py"]
    assert after.keys() == {"net40.py", "parts40/__init__.py", "help40.py"}


def test_a_result_that_recorded_nothing_is_not_mixed_with_one_that_did():
    assert origin_differences({}, {}) == ""
    assert "only one of them" in origin_differences({}, {"data": {}})


@pytest.mark.parametrize("count", [600, 3])
def test_a_changed_size_or_name_of_any_image_file_changes_the_hash(tmp_path, count):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(count if split == "train" else 2):
                image = Image.fromarray(np.full((8, 8), k % 256, np.uint8))
                image.save(tmp_path / split / name / f"{k:03}.bmp")

    def facts():
        return data_facts(load(f"folder:{tmp_path}", in_memory=0))["train"]["sha256"]

    before = facts()
    assert facts() == before
    changed = tmp_path / "train" / "a" / "002.bmp"
    whole = changed.read_bytes()
    changed.write_bytes(whole + b"more")
    assert facts() != before
    changed.write_bytes(whole)
    assert facts() == before
    changed.rename(changed.with_name("002b.bmp"))
    assert facts() != before


def test_code_that_was_edited_after_its_import_is_refused_and_its_hash_is_that_of_what_runs(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "edited_later.py"
    path.write_text("SCALE = 1.0\n")
    importlib.import_module("edited_later")
    before = source_hashes("edited_later:Net")
    assert before == {"edited_later.py": hashlib.sha256(path.read_bytes()).hexdigest()}
    check_unchanged(["edited_later:Net", "mlp"])
    path.write_text("SCALE = -3.0\n")
    assert source_hashes("edited_later:Net") == before
    with pytest.raises(UserError, match=r"edited_later\.py has changed .* Restart Python"):
        check_unchanged(["mlp", "edited_later:Net"])
    importlib.reload(sys.modules["edited_later"])
    check_unchanged(["edited_later:Net"])
    changed = source_hashes("edited_later:Net")
    assert changed != before
    path.write_text("SCALE = -4.0\n")
    del sys.modules["edited_later"]
    importlib.invalidate_caches()
    importlib.import_module("edited_later")
    check_unchanged(["edited_later:Net"])
    assert source_hashes("edited_later:Net") not in (before, changed)
    monkeypatch.setitem(sys.modules, "made_by_hand", types.ModuleType("made_by_hand"))
    assert source_hashes("made_by_hand:Net") == {}
