import dataclasses
import importlib
import json
import sys

import pytest

from vicinal.data import Note, load
from vicinal.training.tensor_tree import read_tree, write_tree

PREPARATION = {"columns": ["x", "y"], "means": [0.5, 1.5], "rate": None}


def prepared(spec, **asked):
    """Load digits as if they had been prepared by ``PREPARATION``."""
    fitted = asked["preparation"] if asked.get("preparation") else PREPARATION
    notes = (Note("column x is a guess", doubtful=True),)
    return dataclasses.replace(load(spec, test_fraction=0.3), preparation=fitted, notes=notes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, recipe_text):
    """Train a network on data with a preparation, and return its checkpoint."""
    from typer.testing import CliRunner

    from vicinal.cli import app

    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "small.toml"
    recipe.write_text(recipe_text({"training.epochs": 1, "data.test_fraction": 0.3}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vicinal.training.trial_setup.load", prepared)
        words = ["train", str(recipe), "--arm", "erm", "--out", str(folder / "run")]
        done = CliRunner().invoke(app, [*words, "--logger", "none"])
    assert done.exit_code == 0, done.stderr
    return folder / "run" / "checkpoint.safetensors"


@pytest.fixture
def changed(trained, tmp_path):
    """Return a function that writes the checkpoint with other words about it."""

    def write(**changes):
        tree = read_tree(trained)
        recipe = tree["info"]["recipe"]
        if "source" in changes:
            recipe["data"]["source"] = changes.pop("source")
        if "network" in changes:
            recipe["model"]["name"] = changes.pop("network")
        tree["info"] |= changes
        write_tree(tmp_path / "changed.safetensors", tree)
        return tmp_path / "changed.safetensors"

    return write


def test_score_uses_the_data_and_the_preparation_of_the_training_by_default(
    trained, vicinal, monkeypatch
):
    asked = []

    def recorded(spec, **settings):
        asked.append((spec, settings))
        return prepared(spec, **settings)

    monkeypatch.setattr("vicinal.training.evaluation_data.load", recorded)
    done = vicinal("score", trained, "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads((trained.parent / "result.json").read_text())
    assert json.loads(done.stdout)["metrics"]["accuracy"] == result["test_metric"]
    assert "warning: column x is a guess" in done.stderr
    (spec, settings), *_ = asked
    assert (spec, settings["preparation"], settings["test_fraction"]) == (
        "digits",
        PREPARATION,
        0.3,
    )


def test_data_that_ignore_the_preparation_are_refused(trained, vicinal, monkeypatch):
    monkeypatch.setattr(
        "vicinal.training.evaluation_data.load", lambda spec, **_: load(spec, test_fraction=0.3)
    )
    for more in ([], ["--data", "digits"]):
        refused = vicinal("score", trained, *more)
        assert refused.exit_code == 2
        assert "got data that cannot be prepared in the same way" in refused.stderr


def test_data_of_the_training_that_changed_are_refused_unless_they_are_named(
    changed, vicinal, monkeypatch
):
    monkeypatch.setattr("vicinal.training.evaluation_data.load", prepared)
    origin = read_tree(changed())["info"]["origin"]
    origin["data"]["test"]["sha256"] = "0" * 64
    path = changed(origin=origin)
    refused = vicinal("score", path)
    assert refused.exit_code == 2
    assert "data.test.sha256 has changed" in refused.stderr
    assert "--data digits" in refused.stderr
    assert vicinal("score", path, "--data", "digits").exit_code == 0
    assert vicinal("score", path, "--split", "train").exit_code == 0


def test_a_table_is_not_prepared_by_its_own_columns(changed, vicinal, tmp_path):
    table = tmp_path / "other.csv"
    table.write_text("x,y\n" + "1,0\n2,1\n" * 20)
    refused = vicinal("score", changed(preparation={}), "--data", f"table:{table}?label=y")
    assert refused.exit_code == 2
    assert "the network was trained on data of another form" in refused.stderr


def test_a_data_set_that_is_elsewhere_now_can_be_named(changed, vicinal):
    path = changed(source="folder:../flowers")
    refused = vicinal("score", path)
    assert refused.exit_code == 2
    assert "there is no folder of images ../flowers" in refused.stderr
    assert f"{path} was trained on it; if it is elsewhere now, name it with --data." in (
        refused.stderr
    )
    named = vicinal("score", path, "--data", "folder:nothing")
    assert "was trained on it" not in named.stderr


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """Write a module that leaves a file when it is imported, and return that file's path."""
    (tmp_path / "weights27.py").write_text(
        "from pathlib import Path\n"
        "from vicinal.models import build\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "def net(shape, classes):\n"
        "    return build('small-cnn', shape=shape, classes=classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "weights27", raising=False)
    importlib.invalidate_caches()
    return tmp_path / "ran"


def test_a_checkpoint_imports_its_network_only_where_that_is_allowed(
    changed, vicinal, stranger, monkeypatch
):
    monkeypatch.setattr("vicinal.training.evaluation_data.load", prepared)
    origin = read_tree(changed())["info"]["origin"]
    origin["network"]["source"] = {"weights27.py": "0" * 64}
    path = changed(network="weights27:net", origin=origin)
    refused = vicinal("score", path)
    assert refused.exit_code == 2
    assert "importing weights27 runs code" in refused.stderr
    assert "--allow-import" in refused.stderr
    assert not stranger.exists()
    # The checkpoint recorded another source, so the score is refused after the import.
    refused = vicinal("score", path, "--allow-import")
    assert "weights27.py has changed" in refused.stderr
    assert stranger.exists()


@pytest.mark.parametrize("source", ["import:weights27:data", "weights27.sub:data"])
def test_a_checkpoint_imports_its_data_only_where_that_is_allowed(
    changed, vicinal, stranger, source
):
    refused = vicinal("score", changed(source=source))
    assert refused.exit_code == 2
    assert "loading that can run code. Choose the data with --data" in refused.stderr
    assert not stranger.exists()


@pytest.fixture
def with_stranger(stranger, monkeypatch):
    """Answer with a monkeypatch where the stranger's module can be imported."""
    return monkeypatch


@pytest.mark.parametrize("command", ["study", "train"])
def test_the_first_lines_name_the_code_that_a_recipe_runs_and_the_notes_of_its_data(
    small_recipe, tmp_path, vicinal, with_stranger, command
):
    with_stranger.setattr("vicinal.training.trial_setup.load", prepared)
    changes = {"model.name": "weights27:net", "training.epochs": 1, "seeds": 1}
    changes |= {"arms": {"erm": {"title": "ERM", "policy": "none"}}, "corrupted_labels": [0.0]}
    words = [command, small_recipe(changes), "--out", tmp_path / "out"]
    done = vicinal(*words, *(["--arm", "erm", "--logger", "none"] if command == "train" else []))
    assert done.exit_code == 0, done.output
    first, second, *_ = done.stderr.splitlines()
    assert first == (
        "this recipe imports and runs code: model.name = 'weights27:net' imports weights27"
    )
    assert second == "warning: column x is a guess"
    folder = (
        tmp_path / "out" if command == "train" else tmp_path / "out/trials/erm-true-labels-seed0"
    )
    with_stranger.setattr("vicinal.training.evaluation_data.load", prepared)
    scored = vicinal("score", folder / "checkpoint.safetensors", "--allow-import", "--json")
    assert scored.exit_code == 0, scored.output
    result = json.loads((folder / "result.json").read_text())
    assert json.loads(scored.stdout)["metrics"]["accuracy"] == result["test_metric"]


@pytest.mark.parametrize(
    "origin",
    [
        {},
        {"data": {}, "network": {}, "versions": {}},
        {"data": {"test": {"examples": 3}}, "network": {"source": {}}, "versions": {}},
    ],
)
def test_a_checkpoint_with_a_damaged_origin_is_refused(changed, vicinal, origin):
    refused = vicinal("score", changed(origin=origin))
    assert refused.exit_code == 2
    assert "expected a trained network of this version of vicinal" in refused.stderr
