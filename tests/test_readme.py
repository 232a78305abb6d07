import json
import re
import textwrap
from pathlib import Path

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


def test_the_committed_study_is_of_the_recipe_as_it_is():
    assert load_resolved(ROOT / "results/digits/recipe.toml") == read_recipe("digits")


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
    assert names["mixed"].places == ["input", "layer1"]
