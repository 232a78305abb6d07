import json

import pytest

import vicinal as package
from vicinal.errors import UserError
from vicinal.training.recipe import load_resolved


def test_a_study_from_python_is_that_of_the_command_line(copied_study, vicinal, capsys):
    path = copied_study / "recipe.toml"
    expected = json.loads(vicinal("study", path, "--out", copied_study, "--json").stdout)
    capsys.readouterr()
    for recipe in (path, str(path), load_resolved(path)):
        done = package.study(recipe, out=copied_study, quiet=True)
        assert json.loads(json.dumps(done.summary)) == expected
        assert done.rows == done.summary["rows"]
        assert (done.folder, done.failures) == (copied_study, {})
    assert capsys.readouterr() == ("", "")


def test_keywords_change_the_recipe_and_the_report_is_written(tmp_path, small_recipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = small_recipe(
        {"corrupted_labels": [0.0], "arms.mixup-features": None, "model.name": "mlp"}
    )
    for recipe in (path, load_resolved(path)):
        done = package.study(recipe, seeds=1, epochs=1, data="iris", quiet=True, out="o")
        assert done.summary["settings"]["training"]["epochs"] == 1
        assert [row["n"] for row in done.rows] == [1, 1]
        assert (done.folder / "report.html").exists()


def test_invalid_arguments_raise(tmp_path, small_recipe):
    recipe = load_resolved(small_recipe())
    with pytest.raises(ValueError, match="--variant: expected the name or path of a recipe"):
        package.study(recipe, variant="long", out=tmp_path)
    with pytest.raises(UserError, match="seeds: expected a number greater than or equal to 1"):
        package.study(recipe, seeds=0, out=tmp_path)
    with pytest.raises(UserError, match="there is no recipe, data set or path 'digit'"):
        package.study("digit", out=tmp_path)
    with pytest.raises(UserError, match="--minutes: expected a data set as WHAT, got digits"):
        package.study("digits", minutes=3, out=tmp_path)
    with pytest.raises(UserError, match="--data: expected a recipe as WHAT, got iris"):
        package.study("iris", data="digits", out=tmp_path)
