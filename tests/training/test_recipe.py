import math
import tracemalloc
from inspect import signature

import pytest

from vicinal.cli import data_app
from vicinal.data import TEST_FRACTION, load
from vicinal.data.dataset import LoadOptions
from vicinal.errors import UserError
from vicinal.training.recipe import load_resolved, read_recipe, resolved_text, shipped
from vicinal.training.recipe_changes import Changes
from vicinal.training.settings import Data


@pytest.mark.parametrize("name", [one for one in shipped() if one != "paper-gan"])
def test_every_shipped_recipe_survives_being_written_and_read(name, tmp_path):
    recipe = read_recipe(name)
    path = tmp_path / "recipe.toml"
    path.write_text(resolved_text(recipe))
    assert load_resolved(path) == recipe


def test_overrides_replace_fields():
    recipe = read_recipe("digits", changes=Changes(seeds=7, epochs=2))
    assert (recipe.seeds, recipe.training.epochs) == (7, 2)


def test_an_arm_can_have_its_own_training_settings(small_recipe):
    changes = {"optimizer": {"lr": 0.5}, "schedule": {"name": "cosine"}}
    recipe = read_recipe(str(small_recipe({"arms.mixup.training": changes})))
    own, other = recipe.training_of("mixup"), recipe.training_of("erm")
    assert other == recipe.training
    assert (own.optimizer.lr, own.optimizer.weight_decay) == (0.5, other.optimizer.weight_decay)
    assert own.schedule.name == "cosine"
    assert own.epochs == recipe.training.epochs


def test_a_variant_replaces_fields_and_extends_the_name():
    plain = read_recipe("cifar10-resnet50")
    short = read_recipe(
        "cifar10-resnet50", variant="short", changes=Changes(epochs=3, data="digits")
    )
    assert (plain.name, short.name) == ("cifar10-resnet50", "cifar10-resnet50-short")
    assert plain.training_of("mixup").schedule.milestones == (10, 100, 200)
    assert plain.training_of("mixup").optimizer.lr == 0.7
    assert short.training.epochs == 3
    assert short.data.source == "digits"
    assert len({short.training_of(arm).model_dump_json() for arm in short.arms}) == 1
    with pytest.raises(UserError, match=r"has no variant 'long'\. It has: short"):
        read_recipe("cifar10-resnet50", variant="long")


def test_alpha_can_be_infinite(small_recipe):
    recipe = read_recipe(str(small_recipe({"arms.mixup.alpha": math.inf})))
    assert recipe.arms["mixup"].alpha == math.inf
    assert '"Infinity"' in recipe.model_dump_json()


BAD_FIELDS = [
    (
        {"arms.mixup.alpha": -1},
        "arms.mixup.alpha: expected alpha from 0 to infinity, got -1.0",
    ),
    (
        {"arms.mixup.alpha": math.nan},
        "arms.mixup.alpha: expected alpha from 0 to infinity, got nan",
    ),
    ({"arms.mixup.alpha": "8"}, "arms.mixup.alpha: expected a valid number, got '8'"),
    ({"arms.mixup.alpha": None}, "arms.mixup.alpha is missing"),
    (
        {"arms.mixup.mix_rate": 1.5},
        "arms.mixup.mix_rate: expected mix_rate, a fraction of the batch, from 0 to 1, got 1.5",
    ),
    ({"arms.mixup.per": "elem"}, "arms.mixup.per: expected 'batch', 'pair' or 'example'"),
    ({"arms.mixup.at": ["stage9"]}, "arms.mixup.at: there is no layer of small-cnn 'stage9'"),
    ({"arms.mixup.at": []}, "arms.mixup.at: expected at least 1 item"),
    ({"arms.mixup.alhpa": 1}, "arms.mixup.alhpa: there is no field 'alhpa'. Did you mean 'alpha'?"),
    ({"arms.erm.alpha": 1}, "arms.erm.alpha: there is no field 'alpha'"),
    (
        {"arms.mixup.policy": "mixpu"},
        "arms.mixup.policy: there is no policy 'mixpu'. Did you mean 'mixup'?",
    ),
    ({"arms.mixup.policy": None}, "arms.mixup.policy is missing"),
    (
        {"arms.mixup.title": "x", "arms.erm.title": "x"},
        "arms: expected a different title for each arm",
    ),
    ({"baseline": "ermm"}, "baseline: there is no arm 'ermm'. Did you mean 'erm'?"),
    (
        {"training.epochs": 0},
        "training.epochs: expected a number greater than or equal to 1, got 0",
    ),
    ({"training.epochs": 2.5}, "training.epochs: expected a valid integer, got 2.5"),
    ({"training.optimizer.lr": math.inf}, "training.optimizer.lr: expected a finite number"),
    (
        {"training.optimizer.name": "adam"},
        "optimizer.name: expected one of 'sgd', 'adamw', 'muon', got 'adam'. Did you mean 'adamw'?",
    ),
    ({"training.optimizer.lrr": 1.0}, "optimizer.lrr: there is no field 'lrr'. Did you mean 'lr'"),
    ({"training.schedule.name": None}, "training.schedule.name is missing"),
    (
        {"training.schedule.pct_start": 2.0},
        "training.schedule.pct_start: expected a number less than or equal to 1",
    ),
    ({"training.precision": "half"}, "training.precision: expected 'float32', 'bfloat16', 'float"),
    (
        {"training.max_grad_norm": 0.0},
        "training.max_grad_norm: expected a number greater than 0, got 0.0",
    ),
    ({"arms.mixup.training": {"epocs": 3}}, "arms.mixup.training.epocs: there is no field"),
    (
        {"arms.mixup.training": {"epochs": 0}},
        "arms.mixup.training.epochs: expected a number greater",
    ),
    ({"seeds": 10**30}, "seeds: expected a number less than or equal to 10000"),
    ({"training.epochs": 1 << 31}, "training.epochs: expected a number less than 2147483648"),
    (
        {"arms.mixup.pairing": "thirds"},
        "arms.mixup.pairing: there is no pairing 'thirds' (",
    ),
    ({"published": [{"arm": "x", "epochs": 1, "accuracy": 1.0, "source": "y"}]}, "no arm 'x'"),
    ({"model.name": "timm:"}, "model.name: "),
    ({"training.epocs": 3}, "no field 'epocs'. Did you mean 'epochs'?"),
    ({"training": 3}, "training: expected a table, got 3"),
    ({"trainig": {}}, "trainig: there is no field 'trainig'. Did you mean 'training'?"),
    ({"model.name": "cnn"}, "model.name: there is no network 'cnn'"),
    ({"data.source": "digit"}, "data.source: there is no data source 'digit'"),
    ({"data.test_fraction": 1.0}, "data.test_fraction: expected a number less than 1, got 1.0"),
    (
        {"corrupted_labels": [0.0, 1.4]},
        "corrupted_labels.1: expected a number less than or equal to 1",
    ),
    ({"corrupted_labels": [0.4, 0.4]}, "corrupted_labels: expected different fractions"),
    ({"name": "../digits"}, "name: expected lowercase letters, digits and dashes, got"),
    (
        {"arms.Mix Up": {"title": "M", "policy": "none"}},
        "arms.Mix Up: expected lowercase letters, digits and dashes, got 'Mix Up'",
    ),
    ({"data": None}, "data is missing"),
]


@pytest.mark.parametrize(("changes", "words"), BAD_FIELDS, ids=lambda value: str(value)[:60])
def test_a_field_that_does_not_fit_is_named_in_one_sentence(changes, words, small_recipe):
    path = small_recipe(changes)
    with pytest.raises(UserError) as caught:
        read_recipe(str(path))
    sentence = str(caught.value)
    assert sentence.startswith(f"the recipe {path}: ")
    assert words in sentence
    assert "\n" not in sentence


ROW = {"arm": "ern", "epochs": 1, "accuracy": 91.0, "source": "a paper"}
INVALID_FIELDS = {
    "seeds": 0,
    "data.source": "digit",
    "training.epochs": 2.5,
    "arms.mixup.alpha": -1,
    "arms.erm.colour": "red",
    "published": [ROW | {"epochs": 0, "accuracy": 101.0}],
}
INCONSISTENT_FIELDS = {
    "baseline": "ermm",
    "corrupted_labels": [0.4, 0.4],
    "arms.mixup.title": "x",
    "arms.erm.title": "x",
    "arms.mixup-features.at": ["stage9"],
    "arms.erm.training": {"batch_size": 0, "optimizer": {"lr": -1.0}},
    "published": [ROW],
}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            INVALID_FIELDS,
            "arms.erm.colour arms.mixup.alpha data.source published.0.accuracy published.0.arm "
            "published.0.epochs seeds training.epochs",
        ),
        (
            INVALID_FIELDS | {"baseline": "ermm", "corrupted_labels": [0.4, 0.4]},
            "arms.erm.colour arms.mixup.alpha baseline corrupted_labels data.source "
            "published.0.accuracy published.0.arm published.0.epochs seeds training.epochs",
        ),
        (
            INCONSISTENT_FIELDS,
            "arms arms.erm.training.batch_size arms.erm.training.optimizer.lr "
            "arms.mixup-features.at baseline corrupted_labels published.0.arm",
        ),
    ],
)
def test_errors_of_a_recipe_are_reported_at_once_one_per_line(small_recipe, changes, named):
    path = small_recipe(changes)
    with pytest.raises(UserError) as caught:
        read_recipe(str(path))
    head, *lines = str(caught.value).splitlines()
    assert head == f"the recipe {path} has {len(lines)} errors:"
    assert sorted(line.split()[0].rstrip(":") for line in lines) == named.split()


def test_settings_that_exclude_each_other_are_all_reported(small_recipe):
    muon = {"name": "muon", "lr": 0.1, "rest": {"name": "sgd", "lr": 0.1}}
    changes = {"optimizer": muon, "max_grad_norm": 1.0, "precision": "float16", "cuda_graphs": True}
    path = small_recipe({f"training.{name}": value for name, value in changes.items()})
    with pytest.raises(UserError, match="has 3 errors:") as caught:
        read_recipe(str(path))
    for field in ("max_grad_norm", "precision", "cuda_graphs"):
        assert str(caught.value).count(f"\n  training.{field}") == 1
    path = small_recipe({"arms.mixup.training": {"cuda_graphs": True}})
    with pytest.raises(
        UserError, match=r"arms\.mixup\.training\.cuda_graphs: expected training.compile = true"
    ):
        read_recipe(str(path))


def test_a_thousand_errors_do_not_fill_the_terminal(small_recipe):
    path = small_recipe({f"training.unknown{k}": k for k in range(1000)})
    with pytest.raises(UserError, match="has 1000 errors:") as caught:
        read_recipe(str(path))
    *shown, last = str(caught.value).splitlines()
    assert (len(shown), last) == (1 + 20, "  and 980 more")


@pytest.mark.parametrize("variants", ["0", "[[]]", '["short"]', "{ short = 3 }"])
def test_variants_that_are_not_tables_raise(variants, tmp_path):
    path = tmp_path / "variants.toml"
    path.write_text(f"variants = {variants}")
    for variant in (None, "short"):
        with pytest.raises(UserError, match=r"variants.toml: variants: expected tables"):
            read_recipe(str(path), variant=variant)


@pytest.mark.parametrize("source", ["folder:a\udcff", "folder:b?c\udcff", "\udcff"])
def test_a_source_that_is_not_utf_8_is_refused_by_name(source):
    words = r"data.source: .*\\xff is not UTF-8\. Rename the file or folder"
    with pytest.raises(UserError, match=words):
        read_recipe("digits", changes=Changes(data=source))


def test_a_recipe_may_begin_with_a_byte_order_mark(small_recipe):
    path = small_recipe()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_recipe(str(path)).name == "digits"


def test_an_arm_cannot_have_the_name_of_another_entry_of_its_result(small_recipe):
    path = small_recipe()
    text = path.read_text()
    path.write_text(text + '\n[arms.recipe]\ntitle = "another"\npolicy = "none"\n')
    with pytest.raises(UserError, match=r"arms\.recipe: expected a name other than recipe"):
        read_recipe(str(path))


HOSTILE = {
    "dotted": (".".join(["a"] * 50_000) + " = 1", "a line of more than 300 dots"),
    "dotted, quoted": (
        " . ".join(['"a\\"b"', "'c'", "d"] * 10_000) + " = 1",
        "a line of more than 300 dots",
    ),
    "header": ("[" + ".".join(["a"] * 50_000) + "]", "a line of more than 300 dots"),
    "arrays": ("a = " + "[" * 90_000 + "]" * 90_000, "maximum recursion depth exceeded"),
    "arrays of 40": ("a = " + "[" * 40 + "]" * 40, "a: there is no field 'a'"),
    "inline tables": ("a = " + "{b=" * 20_000, "maximum recursion depth exceeded"),
    "digits": (f"seeds = {'9' * 100_000}", "is not valid TOML: Exceeds the limit"),
    "hexadecimal": (f"seeds = 0x{'f' * 100_000}", "is not valid TOML: Exceeds the limit"),
    "hexadecimal in an arm": (
        f"[arms.x.training]\nepochs = 0x{'f' * 6_000}",
        "is not valid TOML: Exceeds the limit",
    ),
    "one word": ("a" * 190_000, "is not valid TOML"),
    "one quote": ('"' * 190_001, "is not valid TOML"),
    "a long name": (f"{'a' * 100_000} = 1", "there is no field 'aaa"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_recipe_raises_without_using_much_memory(kind, tmp_path):
    text, words = HOSTILE[kind]
    path = tmp_path / "hostile.toml"
    path.write_text(text)
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read_recipe(str(path))
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert words in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"'digit'. Did you mean 'digits'.*ends in \.toml"):
        read_recipe("digit")


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path):
    cases = {"absent.toml": "there is no such recipe file", "folder.toml": "Is a directory"}
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "broken.toml").write_text("name = \n")
    cases |= {"bytes.toml": "not valid TOML: .*codec can't decode byte"}
    cases |= {"broken.toml": r"not valid TOML: .*line 1"}
    for name, words in cases.items():
        with pytest.raises(UserError, match=words) as caught:
            read_recipe(str(tmp_path / name))
        assert name in str(caught.value)


def test_the_default_test_fraction_is_the_same_everywhere():
    from_cli = [
        signature(command.callback).parameters["test_fraction"].default
        for command in data_app.registered_commands
        if "test_fraction" in signature(command.callback).parameters
    ]
    assert len(from_cli) == 2
    defaults = {
        *from_cli,
        Data.model_fields["test_fraction"].default,
        signature(load).parameters["test_fraction"].default,
        LoadOptions._field_defaults["test_fraction"],
    }
    assert defaults == {TEST_FRACTION}


def test_chosen_arms_are_kept_next_to_the_baseline():
    recipe = read_recipe("digits", changes=Changes(arms=["mixup", "cutmix"]))
    assert set(recipe.arms) == {"erm", "mixup", "cutmix"}
    shorthand = Changes(arms=["erm", "cutmix"], settings=["arms.cutmix.alpha=0.5"])
    assert read_recipe("digits", changes=shorthand).arms["cutmix"].alpha == 0.5
    own = Changes(arms=["erm", "mine"], settings=["arms.mine.policy=mixup", "arms.mine.alpha=2.0"])
    assert read_recipe("digits", changes=own).arms["mine"].alpha == 2
    other = Changes(arms=["mixup-features"], settings=["baseline=mixup"])
    assert set(read_recipe("digits", changes=other).arms) == {"mixup", "mixup-features"}
