import re
import tomllib
from pathlib import Path

from vicinal.data.sources import SOURCES
from vicinal.training.settings import Data

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")


def test_the_code_of_the_page_about_data_runs():
    names = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)
    assert names["x"].shape[1:] == (1, 8, 8)
    assert names["x"].is_floating_point()


def test_the_page_about_data_names_every_source():
    for name in SOURCES:
        assert re.search(rf"`{re.escape(name)}[`:\[]", PAGE), name


def test_the_recipe_of_the_page_about_data_is_one():
    (text,) = re.findall(r"```toml\n\[data\]\n(.*?)```", PAGE, re.DOTALL)
    data = Data.model_validate(tomllib.loads(text))
    assert [step.name for step in data.augment] == ["crop", "flip", "colour"]
