import importlib.util
import json
import re
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import vicinal
from vicinal.training.recipe import load_resolved, read_recipe
from vicinal.training.recipe_changes import Changes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def script():
    """Import scripts/update_readme.py."""
    spec = importlib.util.spec_from_file_location("update", ROOT / "scripts/update_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_committed_results(script):
    assert script.updated(README) == README, "run python scripts/update_readme.py"
    assert re.findall("<!-- generated: (.*?) -->", README) == [
        *("digits", "mixing", "training", "claims", "cifar10-fast", "cifar10-resnet50-90")
    ]


def test_a_table_that_is_out_of_date_is_written_anew(script):
    stale = README.replace("| true labels | ERM |", "| true labels | another |")
    assert stale != README
    assert script.updated(stale) == README


def test_the_tables_hold_the_numbers_of_the_results():
    stored = (ROOT / "results/digits/table.md").read_text()
    assert re.search(r"^\| 40% corrupted \| ERM \|.*$", stored, re.M)[0] in README
    trial = ROOT / "results/cifar10-fast/trials/mixup-true-labels-seed1/result.json"
    accuracy = json.loads(trial.read_text())["test_accuracy"]
    assert f"| cifar10-fast | input mixup | 6 | 1 | {100 * accuracy:.2f} |" in README
    cases = json.loads((ROOT / "benchmarks/results/mixing-cpu.json").read_text())["cases"]
    times = {
        (row["case"], *row["shape"], row["contender"]): row["median_ms"]
        for row in cases
        if row["dtype"] == "float32"
    }
    small = {n: times["in place", 512, 3, 32, 32, n] for n in ("vicinal, per example", "copy")}
    ours, copy = small.values()
    assert f"| in place, 512x3x32x32 | {ours:.3g} | {copy:.3g} (copy) |" in README
    checks = json.loads((ROOT / "benchmarks/results/training-cpu.json").read_text())["checks"]
    plain = [f"{row['median']:.2f}" for row in checks if row["ratio"] == "vicinal / plain step"]
    assert f"| vicinal / plain step | {' | '.join(plain)} |" in README


@pytest.mark.parametrize(
    ("folder", "recipe", "changes"),
    [
        ("digits", "digits", {}),
        ("cifar10-fast", "cifar10-fast", {}),
        ("cifar10-fast-long", "cifar10-fast", {"variant": "long"}),
        (
            "cifar10-resnet50-90",
            "cifar10-resnet50",
            {
                "changes": Changes(
                    seeds=1,
                    epochs=90,
                    data="npz:data/cifar10.npz",
                    settings=["training.compile=true"],
                )
            },
        ),
    ],
)
def test_the_committed_studies_used_the_current_recipes(folder, recipe, changes):
    stored = load_resolved(ROOT / "results" / folder / "recipe.toml")
    assert stored == read_recipe(recipe, **changes)


def test_every_linked_file_exists():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target.partition("#")[0]).exists(), target


def test_the_code_runs():
    first, second, third = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    model = nn.Sequential()
    model.layer1, model.head = nn.Linear(3, 4), nn.Linear(4, 2)
    loader = [(torch.rand(5, 3), torch.randint(2, (5,)))]
    # The test machine need not have the C++ compiler that torch's own backend calls.
    third = third.replace("torch.compile(mixed)", 'torch.compile(mixed, backend="eager")')
    names = {"model": model, "loader": loader, "torch": torch, "vicinal": vicinal}
    names["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.1)
    begin = model.head.weight.detach().clone()
    exec(first, names)
    assert not torch.equal(model.head.weight, begin)
    x, y = loader[0]
    names |= {"x": x, "y": y, "plan": vicinal.MixUp(1.0).draw(len(x))}
    exec(textwrap.dedent(second) + third, names)
    assert names["loss"].requires_grad
    assert names["mixed"].layers == ["input", "layer1"]
