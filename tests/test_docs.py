import copy
import re
import tomllib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from vicinal.data.catalog import SOURCES
from vicinal.models.registry import NETWORKS
from vicinal.training import settings
from vicinal.training.recipe import read_recipe
from vicinal.training.settings import Data, Training

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "data.md").read_text("utf-8")
TRAINING_PAGE = (DOCS / "training.md").read_text("utf-8")


def test_the_code_of_the_page_about_data_runs():
    names = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)
    assert names["x"].shape[1:] == (1, 8, 8)
    assert names["x"].is_floating_point()


def test_the_code_of_the_page_about_probes_runs():
    page, names = (DOCS / "probes.md").read_text("utf-8"), {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    assert names["found"].raw.ece < 0.1
    assert names["found_other"].auroc > 0.6
    assert names["found_between"].miss_rate[5] > 10 * names["found_between"].miss_rate[0]
    assert names["found_errors"].real_error < 0.01
    assert names["found_errors"].corrupted_error > 0.8
    assert names["attacked"].accuracy("pgd-20")[[0, -1]].tolist() == pytest.approx(
        [0.95, 0], abs=0.05
    )


def test_the_code_of_the_page_about_gans_runs():
    (code,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "generative.md").read_text("utf-8"), re.DOTALL
    )
    names = {}
    exec(code, names)
    assert names["discriminator"].weight.grad.abs().sum() > 0


def test_the_code_of_the_page_about_own_loops_runs_and_does_what_it_says():
    page, names = (DOCS / "loop.md").read_text("utf-8"), {}

    def run(until):
        while until not in (code := codes.pop(0)):
            exec(code, names)
        exec(code, names)

    codes = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    run("for rows in")
    # The two parts have the gradient of the whole batch. One step of lr 0.01 has been taken.
    model, plan = copy.deepcopy(names["model"]), names["plan"]
    for name, tensor in model.named_parameters():
        tensor.data += 0.01 * names["model"].get_parameter(name).grad
    x, y = names["images"], names["classes"]
    for parameter in model.parameters():
        parameter.grad = None
    plan.loss(F.cross_entropy, model(plan.mix(x)), y).backward()
    for name, parameter in names["model"].named_parameters():
        expected = model.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)
    run("vicinal.mix(")
    plan, table = names["plan"], names["batch"]["table"]
    lam = plan.lam[:, None]
    blended = lam * table + (1 - lam) * table[plan.partner]
    torch.testing.assert_close(names["mixed"]["table"], blended)
    run("huber_loss")
    plan, prices = names["plan"], names["prices"]
    blended = plan.lam * prices + (1 - plan.lam) * prices[plan.partner]
    torch.testing.assert_close(names["loss"], F.huber_loss(names["output"], blended))
    run("masks")
    pasted = torch.where(
        names["plan"].region, names["masks"][names["plan"].partner], names["masks"]
    )
    output = names["segmenter"](names["plan"].mix(x))
    torch.testing.assert_close(names["loss"], F.cross_entropy(output, pasted, ignore_index=255))
    run("DataLoader")
    assert len(names["plan"]) == 4
    run("generator_at")
    assert not codes


def test_the_page_about_data_names_every_source():
    for name in SOURCES:
        assert re.search(rf"`{re.escape(name)}[`:\[]", PAGE), name


def test_the_recipe_of_the_page_about_data_is_one():
    (text,) = re.findall(r"```toml\n\[data\]\n(.*?)```", PAGE, re.DOTALL)
    data = Data.model_validate(tomllib.loads(text))
    assert [step.name for step in data.augment] == [
        "random-crop",
        "random-horizontal-flip",
        "hls-jitter",
    ]


def rows_of(page, head):
    """Return the cells of the table whose first column has this heading."""
    lines = page[page.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def told(default):
    """Return what the table says of a default."""
    if default is None:
        return "none"
    return f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{_toml(default)}`"


def _toml(value):
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_the_code_of_the_page_about_training_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TRAINING_PAGE, re.DOTALL)
    names = {}
    exec(code, names)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("1 ")
    assert second.startswith("2 ")
    assert names["found"].metric("accuracy", "classification") > 0.5


def test_the_page_about_training_names_every_field_with_its_default_and_no_other():
    page = {row[0].strip("`"): row[2] for row in rows_of(TRAINING_PAGE, "field")}
    fields = Training.model_fields
    assert page == {
        name: "" if field.is_required() else told(field.default) for name, field in fields.items()
    }


@pytest.mark.parametrize(
    ("head", "tables"),
    [
        ("`optimizer.name`", [settings.SGD, settings.AdamW, settings.Muon]),
        (
            "`schedule.name`",
            [settings.OneCycle, settings.Cosine, settings.Linear, settings.Constant, settings.Step],
        ),
    ],
)
def test_the_page_about_training_names_the_fields_of_each_table_that_has_a_name(head, tables):
    rows = rows_of(TRAINING_PAGE, head)
    for row, table in zip(rows, tables, strict=True):
        fields = dict(table.model_fields)
        (name,) = fields.pop("name").annotation.__args__
        assert row[0] == f'`"{name}"`'
        defaults = dict(re.findall(r"`(\w+)`(?: \((\S+)\))?", row[1]))
        assert defaults == {
            field: ""
            if its.is_required()
            else "true"
            if its.default is True
            else f"{its.default:g}"
            for field, its in fields.items()
        }


def test_the_page_about_training_names_every_network_with_its_smallest_side_and_places():
    page = {}
    for names, smallest, _ in rows_of(TRAINING_PAGE, "`model.name`"):
        page |= dict.fromkeys(re.findall("`(.*?)`", names), smallest)
    assert page == {
        name: "any shape" if network.smallest is None else str(network.smallest)
        for name, network in NETWORKS.items()
    }
    for names, _, layers in rows_of(TRAINING_PAGE, "`model.name`"):
        first, last = re.findall("`(.*?)`", layers)[0], re.findall("`(.*?)`", layers)[-1]
        for name in re.findall("`(.*?)`", names):
            assert (NETWORKS[name].layers[0], NETWORKS[name].layers[-1]) == (first, last)


def test_the_recipe_of_the_page_about_training_is_one(tmp_path):
    toml = re.findall(r"```toml\n(.*?)```", TRAINING_PAGE, re.DOTALL)
    rest = """
        name = "page"
        baseline = "mixup"
        data.source = "digits"
        model.name = "small-cnn"
        [training]
        epochs = 200
        batch_size = 64
        optimizer = { name = "sgd", lr = 0.1 }
        schedule = { name = "step", milestones = [5] }
    """
    path = tmp_path / "page.toml"
    path.write_text("\n".join([rest, *toml]))
    recipe, short = read_recipe(str(path)), read_recipe(str(path), variant="short")
    assert recipe.training_of("mixup").optimizer.lr == 0.7
    assert recipe.training_of("mixup").schedule.milestones == (10, 100, 200)
    assert recipe.published[0].accuracy == 91.61
    assert short.training_of("mixup").epochs == 16
    assert short.training_of("mixup").schedule.pct_start == 0.2


def test_every_file_that_the_page_about_training_points_to_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", TRAINING_PAGE):
        assert target.startswith("https://") or (DOCS / target.partition("#")[0]).exists(), target
