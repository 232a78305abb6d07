import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vicinal.cli import app
from vicinal.training.recipe import load_resolved, resolved_text
from vicinal.training.settings import Recipe

ROWS = [
    {"arm": "erm", "epochs": 2, "accuracy": 94.47, "source": "the paper, a median of ten epochs"},
    {"arm": "mixup", "epochs": 300, "accuracy": 95.8, "source": f"example.org/{'x' * 80}"},
]


DIFFERENCES = ["Their loss is <another> one.", "Their *network* has fewer norms."]


@pytest.fixture(scope="session")
def study_with_rows(finished_study, tmp_path_factory):
    """Return a finished study with published rows and known differences, and its output."""
    folder = Path(shutil.copytree(finished_study, tmp_path_factory.mktemp("rows") / "study"))
    path = folder / "recipe.toml"
    added = {"published": ROWS, "known_differences": DIFFERENCES}
    path.write_text(resolved_text(Recipe.model_validate(load_resolved(path).model_dump() | added)))
    done = CliRunner().invoke(app, ["study", str(path), "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return folder, done.stdout


HOSTILE = (
    "=cmd|'a'!A0 \x1b[31m\x9b32m\x07 <script>alert(1)</script> <img src=x onerror=alert(1)> "
    "`a` [b]bold[/b] :skull: [c](javascript:d) a|b\nvicinal: fine\r\u202e\u2066\u2028 猫"
)
FILE = HOSTILE.replace("/", "_")
"""As the name of a folder."""


@pytest.fixture(scope="session")
def hostile_study(tmp_path_factory, recipe_text):
    """Run a study whose titles, sources, data and folder are hostile; return it and its output."""
    root = tmp_path_factory.mktemp("root") / FILE
    for part, count in (("train", 6), ("test", 3)):
        for k, name in enumerate((FILE, f"+{FILE}", f"{FILE} é")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for n in range(count):
                pixels = np.random.default_rng(n).integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels // (k + 1)).save(folder / f"{n}.png")
    published = [{"arm": "mixup", "epochs": 1, "accuracy": 90.0, "source": f"@{HOSTILE}"}]
    recipe = root.parent / "hostile.toml"
    recipe.write_text(
        recipe_text(
            {
                "seeds": 1,
                "training.epochs": 1,
                "training.batch_size": 6,
                "data.source": f"folder:{root}",
                "arms.erm.title": f"-{HOSTILE}",
                "arms.mixup.title": f"\x00{HOSTILE}",
                "published": published,
            }
        ),
        encoding="utf-8",
    )
    out = root.parent / FILE / "study"
    done = CliRunner().invoke(app, ["study", str(recipe), "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out, done, root


@pytest.fixture
def hostile():
    """Return a name that terminals, browsers, spreadsheets and Markdown would obey."""
    return HOSTILE
