import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import vicinal
from vicinal.training.recipe import load_resolved, read_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def table_in(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_table_is_the_one_that_the_committed_study_wrote():
    assert table_in(README) == table_in((ROOT / "results/digits/table.md").read_text())
    assert len(table_in(README)) == 2 + 6


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
    names = {"F": F, "model": model, "loader": loader, "torch": torch, "vicinal": vicinal}
    exec(first.replace("    ...\n", "") + second + third, names)
    assert names["loss"].requires_grad
    assert names["mixed"].places == ["input", "layer1"]
