"""Networks trained on one table and scored on another: the columns are those of the training."""

import json
import shlex
from pathlib import Path

import pytest
import tomlkit

CASES = Path(__file__).parents[1] / "cases" / "score-table"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a function that trains on one of the tables once, which returns the checkpoint."""
    from typer.testing import CliRunner

    from vicinal.cli import app

    folder = tmp_path_factory.mktemp("tables")

    def train(name):
        out = folder / name
        if not out.exists():
            recipe = {
                "name": "tab",
                "baseline": "erm",
                "data": {
                    "source": f"table:{name}.csv?label=y",
                    "root": str(CASES),
                    "test_fraction": 0.3,
                },
                "model": {"name": "mlp"},
                "training": {
                    "epochs": 20,
                    "batch_size": 64,
                    "optimizer": {"name": "adamw", "lr": 0.01},
                    "schedule": {"name": "one-cycle"},
                    "accelerator": "cpu",
                    "threads": 1,
                },
                "arms": {"erm": {"title": "ERM", "policy": "none"}},
            }
            path = folder / f"{name}.toml"
            path.write_text(tomlkit.dumps(recipe))
            words = ["train", str(path), "--arm", "erm", "--out", str(out), "--logger", "none"]
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
        return out / "checkpoint.safetensors"

    return train


@pytest.mark.parametrize(
    ("trained_on", "scored_on", "accuracy"),
    [
        ("a", "c", 0.2983),  # other categories: 1.0 by columns of its own
        ("a", "d", 1.0),  # x is shifted by 5: 0.7778 by means of its own
        ("n", "n_few", 1.0),  # 43 rows: 0.6154 by means of their own
    ],
)
def test_a_table_is_scored_by_the_columns_of_the_training(
    trained, vicinal, trained_on, scored_on, accuracy
):
    words = ["--data", f"table:{scored_on}.csv?label=y", "--root", CASES, "--json"]
    done = vicinal("score", trained(trained_on), *words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"]["accuracy"] == pytest.approx(accuracy, abs=0.01)


def test_columns_in_another_order_are_found_by_name(trained, vicinal):
    def told(*words):
        done = vicinal("score", trained("n"), "--json", *words)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    swapped = told("--data", "table:n_swapped.csv?label=y", "--root", CASES)
    assert swapped == told("--data", "table:n.csv?label=y", "--root", CASES) == told()


def test_the_advice_for_changed_data_names_those_that_were_asked_for(trained, vicinal, tmp_path):
    root = tmp_path / "other data"
    root.mkdir()
    lines = (CASES / "n.csv").read_text().splitlines()
    (root / "n.csv").write_text("\n".join([*lines[:-9], ""]))
    done = vicinal("score", trained("n"), "--root", root)
    assert done.exit_code == 2
    command = done.stderr.split("To use it anyway, pass ")[1].replace("\n", " ").strip()[:-1]
    assert shlex.split(command) == ["--data", "table:n.csv?label=y", "--root", str(root)]
    assert vicinal("score", trained("n"), *shlex.split(command)).exit_code == 0


def test_a_copy_of_the_training_table_that_is_split_by_another_seed_is_doubted(
    trained, vicinal, tmp_path
):
    copy = tmp_path / "copy.csv"
    copy.write_bytes((CASES / "a.csv").read_bytes())
    source = f"table:{copy}?label=y"
    for words, doubted in ((["--seed", 5], True), (["--test-fraction", 0.4], True), ([], False)):
        done = vicinal("score", trained("a"), "--data", source, *words)
        assert done.exit_code == 0, done.output
        assert ("this is another split of the data of the training" in done.stderr) == doubted
