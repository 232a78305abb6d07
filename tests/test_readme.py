import json
import re
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import vicinal
from vicinal.training.recipe import load_resolved, read_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def table_in(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def study_table():
    begin = README.index("<!-- results/digits/table.md -->")
    return table_in(README[begin : README.index("## In your own loop")])


def test_the_table_is_the_one_that_the_committed_study_wrote():
    assert study_table() == table_in((ROOT / "results/digits/table.md").read_text())
    assert len(study_table()) == 2 + 6


def test_the_times_are_those_of_the_committed_benchmark():
    measured = json.loads((ROOT / "benchmarks/results/mixing-cpu.json").read_text())["cases"]
    times = {f"{row['median_ms']:.3g}" for row in measured if row["dtype"] == "float32"}
    section = README[README.index("## What it costs") : README.index("## A study of your own")]
    rows = table_in(section)[2:]
    cells = [cell.split()[0] for row in rows for cell in row.strip("| ").split(" | ")[1:]]
    told = [cell for cell in cells if cell != "—"]
    assert len(told) == 18
    assert set(told) <= times


def test_the_words_about_training_are_those_of_the_committed_benchmark():
    measured = json.loads((ROOT / "benchmarks/results/training-cpu.json").read_text())["checks"]
    told = " ".join(README[README.index("Training as recipes do it") :].split())
    times, compiled, loop, mixed, features = (
        [row["median"] for row in measured if row["what"].endswith(end)]
        for end in ("plain step", "compiled", "metrics", "input", "feature maps")
    )
    lost = [[f"{100 - 100 * ratio:.1f}" for ratio in pair] for pair in (loop, mixed, features)]
    assert f"{times[0]:.1f} times the images a second for PreAct ResNet-18" in told
    assert f"{times[1]:.1f} times for the small ResNet-50" in told
    assert f"{compiled[1]:.1f} times with `compile = true`" in told
    assert f"cost {lost[0][0]} and {lost[0][1]} % of a bare step" in told
    assert f"mixing at the input {lost[1][0]} and {lost[1][1]} %" in told
    assert f"in feature maps {lost[2][0]} and {lost[2][1]} %" in told


@pytest.mark.parametrize(
    ("folder", "recipe", "changes"),
    [
        ("digits", "digits", {}),
        ("cifar10-fast", "cifar10-fast", {}),
        ("cifar10-fast-long", "cifar10-fast", {"variant": "long"}),
        ("cifar10-resnet50-short", "cifar10-resnet50", {"variant": "short", "seeds": 1}),
    ],
)
def test_the_committed_studies_are_of_the_recipes_as_they_are(folder, recipe, changes):
    stored = load_resolved(ROOT / "results" / folder / "recipe.toml")
    assert stored == read_recipe(recipe, **changes)


def test_the_fast_trainings_are_those_that_were_committed():
    begin = README.index("<!-- results/cifar10-fast -->")
    _, _, *rows = table_in(README[begin : README.index("The ResNet of that table")])
    assert len(rows) >= 4
    for row in rows:
        folder, arm, epochs, seed, accuracy, minutes = row.strip("| ").split(" | ")
        name = {"ERM": "erm", "input mixup": "mixup"}[arm]
        path = ROOT / "results" / folder / "trials" / f"{name}-true-labels-seed{seed}/result.json"
        result = json.loads(path.read_text())
        assert result["epochs"] == int(epochs)
        assert f"{100 * result['test_accuracy']:.2f}" == accuracy
        assert f"{result['seconds'] / 60:.1f}" == minutes


def test_the_table_of_the_resnet_is_the_one_that_the_committed_study_wrote():
    begin = README.index("<!-- results/cifar10-resnet50-short/table.md -->")
    told = table_in(README[begin : README.index("## Your data")])
    text = (ROOT / "results/cifar10-resnet50-short/table.md").read_text()
    assert told == table_in(text[: text.index("## Published")])
    assert len(told) == 2 + 3


def test_every_file_that_is_pointed_to_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


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
