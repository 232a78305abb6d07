import pytest

from vicinal.training.recipe import load_resolved, resolved_text
from vicinal.training.settings import Recipe

ROWS = [
    {"arm": "erm", "epochs": 2, "accuracy": 94.47, "source": "the paper, a median of ten epochs"},
    {"arm": "mixup", "epochs": 300, "accuracy": 95.8, "source": f"example.org/{'x' * 80}"},
]


@pytest.fixture
def study_with_rows(copied_study, vicinal):
    """Answer with a finished study to whose recipe published rows were added."""
    path = copied_study / "recipe.toml"
    settings = load_resolved(path).model_dump() | {"published": ROWS}
    path.write_text(resolved_text(Recipe.model_validate(settings)))
    done = vicinal("study", path, "--out", copied_study)
    assert done.exit_code == 0, done.output
    return copied_study
