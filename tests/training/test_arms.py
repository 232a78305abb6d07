import dataclasses
import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pydantic
import pytest

import vicinal
from vicinal.data import load
from vicinal.errors import UserError
from vicinal.mixing import (
    CutMix,
    DirichletMixUp,
    FMix,
    MixUp,
    Nearest,
    OneOf,
    Pairing,
    Policy,
    RegMixUp,
    SameClass,
    Shuffle,
)
from vicinal.mixing.registry import PAIRINGS, POLICIES
from vicinal.training.arm_shorthands import SHORTHANDS, shorthand_arms
from vicinal.training.arm_titles import titled
from vicinal.training.arms import ARMS, AnyArm, ImportedPolicy, _table, policy_of
from vicinal.training.recipe import load_resolved, read_recipe, resolved_text
from vicinal.training.recipe_warnings import code_warnings, unused_settings


def arm_of(**fields):
    return pydantic.TypeAdapter(AnyArm).validate_python(fields)


def test_every_public_policy_and_pairing_has_a_name():
    public = [getattr(vicinal, name) for name in vicinal.__all__]
    made = {one for one in public if isinstance(one, type) and dataclasses.is_dataclass(one)}
    assert made == {*POLICIES.values(), *PAIRINGS.values()}


@pytest.mark.parametrize("name", POLICIES)
def test_an_arm_has_every_argument_of_its_policy_with_the_default_of_the_signature(name):
    fields = ARMS[name].model_fields
    for one in dataclasses.fields(POLICIES[name]):
        field = fields["inner" if one.name == "policy" else one.name]
        if one.default_factory is not dataclasses.MISSING:
            assert field.default.build() == one.default_factory()
        elif one.default is dataclasses.MISSING:
            assert field.is_required()
        else:
            assert field.default == one.default


@dataclasses.dataclass(frozen=True)
class Fading:
    """A policy that nobody has thought of.

    Args:
        speed: how fast,
            in rows per second.
        steps: some numbers.
    """

    speed: float | tuple[float, float]
    steps: Sequence[int] | None = None
    pairing: Pairing = dataclasses.field(default_factory=Nearest)
    policy: Policy | None = None

    def __post_init__(self):
        if self.speed == 3:
            raise ValueError("Fading: expected a speed other than 3.")


def test_a_new_policy_needs_no_second_list():
    table = _table("fading", Fading, "policy", {"import": ImportedPolicy})
    made = table(policy="fading", speed=[1, 2.5], steps=[1, 2], pairing="same-class", inner="none")
    assert made.build() == Fading((1.0, 2.5), (1, 2), SameClass(), None)
    assert table(policy="fading", speed=1).build() == Fading(1.0)
    assert table.model_fields["speed"].description == "how fast, in rows per second."
    with pytest.raises(pydantic.ValidationError, match=r"\.speed: expected a speed other than 3"):
        table(policy="fading", speed=3)


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        (
            {"policy": "mixup", "alpha": [2, 1], "per": "example", "keep_larger": True},
            MixUp((2.0, 1.0), per="example", keep_larger=True),
        ),
        (
            {"policy": "mixup", "alpha": math.inf, "pairing": {"name": "nearest", "k": 2}},
            MixUp(math.inf, pairing=Nearest(k=2)),
        ),
        (
            {"policy": "cutmix", "pairing": {"name": "shuffle", "meet_self": False}},
            CutMix(pairing=Shuffle(meet_self=False)),
        ),
        ({"policy": "dirichlet", "alpha": 1, "parents": 4}, DirichletMixUp(1.0, parents=4)),
        (
            {"policy": "regmixup", "inner": {"policy": "fmix", "decay": 2}, "weight": 0.5},
            RegMixUp(FMix(decay=2.0), weight=0.5),
        ),
        (
            {
                "policy": "one-of",
                "policies": [{"policy": "mixup", "alpha": 0.2}, "cutmix", "none"],
                "probabilities": [0.4, 0.4, 0.2],
            },
            OneOf((MixUp(0.2), CutMix(), None), (0.4, 0.4, 0.2)),
        ),
    ],
)
def test_an_arm_becomes_its_policy_also_after_it_is_written_and_read(
    fields, policy, small_recipe, tmp_path
):
    recipe = read_recipe(str(small_recipe({"arms.mixup": fields})))
    assert policy_of(recipe.arms["mixup"]) == policy
    assert policy_of(recipe.arms["erm"]) is None
    (tmp_path / "resolved.toml").write_text(resolved_text(recipe))
    assert load_resolved(tmp_path / "resolved.toml") == recipe


MIXUP = {"policy": "mixup", "alpha": 1.0}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (MIXUP | {"alpha": [1]}, "alpha.1 is missing"),
        (MIXUP | {"alpha": [1, "a"]}, "alpha.1: expected a valid number, got 'a'"),
        (MIXUP | {"alpha": [0, 1]}, "alpha: expected two finite numbers above 0 for an asymmetric"),
        (
            MIXUP | {"pairing": {"name": "nearest", "k": 0}},
            "pairing.k: expected k, a number of nei",
        ),
        (
            MIXUP | {"pairing": {"name": "neerest"}},
            "pairing.name: there is no pairing 'neerest'. D",
        ),
        (MIXUP | {"pairing": {"k": 2}}, "pairing.name is missing"),
        (MIXUP | {"pairing": 3}, "pairing: expected a table, got 3"),
        (MIXUP | {"pairing": "similar-targets"}, "pairing.bandwidth is missing"),
        (MIXUP | {"pairing": "other-batch"}, "pairing: a training step has one batch, so"),
        (
            {"policy": "resizemix", "scale": [0.5, 0.1]},
            "scale: expected scale as (lowest, highest)",
        ),
        ({"policy": "regmixup"}, "inner is missing"),
        ({"policy": "regmixup", "inner": "mixup"}, "inner.alpha is missing"),
        ({"policy": "regmixup", "inner": "none"}, "inner: there is no policy 'none'"),
        ({"policy": "one-of", "policies": []}, " expected at least one policy, got none."),
        (
            {"policy": "one-of", "policies": [MIXUP], "probabilities": [0.5]},
            "probabilities: expected 1 probabilities that sum to one, got [0.5]",
        ),
        (
            {"policy": "one-of", "policies": ["none", MIXUP | {"mix_rate": 2}]},
            "policies.1.mix_rate: expected mix_rate, a fraction of the batch",
        ),
        ({"policy": "import", "object": "a b:c"}, 'object: expected "package.module:Policy", got'),
        ("mixup", " expected a table, got 'mixup'"),
    ],
)
def test_an_error_names_the_field_of_the_arm(fields, sentence, small_recipe):
    with pytest.raises(UserError) as caught:
        read_recipe(str(small_recipe({"arms.mixup": fields})))
    _, _, text = str(caught.value).partition(": arms.mixup")
    assert text[1:].startswith(sentence)
    assert "\n" not in text


def test_an_arm_without_a_title_gets_one_that_no_other_has():
    tables = {
        "erm": arm_of(policy="none"),
        "one": arm_of(**MIXUP),
        "two": arm_of(**MIXUP, training={"epochs": 1}),
        "half": arm_of(policy="mixup", alpha=[1, 0.5], pairing={"name": "nearest", "k": 3}),
        "both": arm_of(policy="regmixup", inner=MIXUP | {"keep_larger": True}, at=["stage1"]),
        "some": arm_of(policy="one-of", policies=["cutmix", "none"]),
        "similar": arm_of(
            policy="mixup", alpha=2, pairing={"name": "similar-targets", "bandwidth": 0.5}
        ),
        "near": arm_of(**MIXUP, at=["input", "stage1"]),
        "anywhere": arm_of(**MIXUP, at=["input", "stage1", "stage2"]),
        "own": arm_of(policy="import", object="a:B", options={"k": 2.0}),
        "named": arm_of(policy="cutmix", title="boxes"),
    }
    assert {name: arm.title for name, arm in titled(tables).items()} == {
        "erm": "ERM",
        "one": "mixup (alpha 1), one",
        "two": "mixup (alpha 1), two",
        "half": "mixup (alpha [1, 0.5], nearest (k 3))",
        "both": "RegMixUp (mixup (alpha 1, keep_larger true)) at stage1",
        "some": "OneOf (CutMix, none)",
        "similar": "C-Mixup (alpha 2, bandwidth 0.5)",
        "near": "mixup (alpha 1) at input, stage1",
        "anywhere": "manifold mixup (alpha 1)",
        "own": "a:B (k 2)",
        "named": "boxes",
    }


def test_a_policy_of_the_user_is_built_from_a_class_or_an_object(tmp_path, monkeypatch):
    text = "from vicinal import CutMix\nBOXES = CutMix(0.5)\nNUMBER = 3\n"
    (tmp_path / "boxes.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def policy(path, **options):
        return policy_of(arm_of(policy="import", object=path, options=options))

    assert policy("boxes:CutMix", alpha=0.3) == CutMix(0.3)
    assert policy("boxes:BOXES") == CutMix(0.5)
    for path, options, words in (
        ("boxes:CutMix", {"alhpa": 1}, r"cannot be called with the options alhpa \(TypeError"),
        ("boxes:BOXES", {"alpha": 1}, "is an object, which takes no options"),
        ("boxes:NUMBER", {}, r"boxes:NUMBER cannot be called with the options \(none\)"),
        (
            "builtins:dict",
            {},
            "expected a policy, with the method draw of vicinal.Policy, got dict",
        ),
        ("boxes:CutMx", {}, "there is no name in boxes 'CutMx'. Did you mean 'CutMix'"),
        ("nowhere:Policy", {}, "nowhere cannot be imported"),
    ):
        with pytest.raises(UserError, match=words):
            policy(path, **options)


def test_a_recipe_that_imports_a_policy_is_reported_and_read_without_the_import(small_recipe):
    own = {"policy": "import", "object": "not_there.policies:Mine"}
    changes = {"arms.mixup": own, "arms.mixup-features": {"policy": "regmixup", "inner": own}}
    recipe = read_recipe(str(small_recipe(changes)))
    assert code_warnings(recipe) == [
        f"this recipe imports and runs code: arms.{name} = 'not_there.policies:Mine' imports "
        "not_there.policies"
        for name in ("mixup", "mixup-features")
    ]


def test_data_that_a_recipe_imports_are_reported_and_not_imported_to_show_it(small_recipe, vicinal):
    path = small_recipe(
        {
            "data.source": "import:not_there:data",
            "probes": {"ood": {"source": "import:nor_this.module:data"}},
        }
    )
    assert code_warnings(read_recipe(str(path))) == [
        f"this recipe imports and runs code: {field} = 'import:{module}:data' imports {module}"
        for field, module in {
            "data.source": "not_there",
            "probes.ood.source": "nor_this.module",
        }.items()
    ]
    shown = vicinal("study", path, "--show")
    assert shown.exit_code == 0, shown.stderr
    assert "cost: not measured, since this recipe imports and runs code" in shown.stdout


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"policy": "cutmix", "alpha": 0}, "alpha = 0"),
        ({"policy": "fmix", "mix_rate": 0}, "mix_rate = 0 of a batch of 64 examples rounds to 0"),
        ({"policy": "regmixup", "inner": MIXUP, "weight": 0}, "weight = 0"),
        ({"policy": "regmixup", "inner": MIXUP | {"alpha": 0}}, "alpha = 0"),
        (
            {"policy": "one-of", "policies": ["none", MIXUP | {"alpha": 0}]},
            'policy = "none" and alpha = 0',
        ),
        (
            {"policy": "one-of", "policies": ["none", MIXUP], "probabilities": [1, 0]},
            'policy = "none"',
        ),
        ({"policy": "one-of", "policies": ["none", MIXUP]}, None),
        ({"policy": "resizemix"}, None),
        ({"policy": "import", "object": "a:b"}, None),
    ],
)
def test_an_arm_that_never_mixes_is_reported_whatever_its_policy(fields, why, small_recipe):
    recipe = read_recipe(str(small_recipe({"arms.mixup": fields})))
    expected = [f"arms.mixup never mixes: {why}"] if why else []
    assert unused_settings(recipe, ["erm", "mixup"]) == expected


def test_every_shorthand_is_an_arm():
    arms = shorthand_arms(SHORTHANDS, layers=["stage1", "stage2"])
    assert arms.keys() == {"erm", "manifold", "c-mixup", *POLICIES}
    assert policy_of(arms["erm"]) is None
    assert policy_of(arms["mixup"]) == MixUp(0.2)
    assert policy_of(arms["regmixup"]) == RegMixUp(MixUp(10.0))
    assert policy_of(arms["manifold"]) == MixUp(2.0)
    assert arms["manifold"].at == ("input", "stage1", "stage2")
    assert len({arm.title for arm in arms.values()}) == len(arms)


def test_a_shorthand_that_is_unknown_or_lacks_layers_is_an_error():
    with pytest.raises(UserError, match=r"no arm 'cutmx'\. Did you mean 'cutmix'\? .*c-mixup\)\."):
        shorthand_arms(["erm", "cutmx"])
    with pytest.raises(UserError, match="manifold: expected a network whose layers are known"):
        shorthand_arms(["manifold"])


POLICIES_PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")


def test_the_recipe_of_the_page_about_policies_has_every_policy_and_pairing():
    (text,) = re.findall(r"```toml\n(.*?)```", POLICIES_PAGE, re.DOTALL)
    arms = {name: arm_of(**fields) for name, fields in tomllib.loads(text)["arms"].items()}
    assert {arm.policy for arm in arms.values()} == ARMS.keys()
    assert policy_of(arms["cutmix"]) == CutMix(1.0, per="example", pairing=Nearest(k=3))
    named = {
        kind.__name__: name for name, kind in (POLICIES | PAIRINGS).items() if name != "other-batch"
    }
    assert dict(re.findall(r'`(\w+)` \| `"([a-z-]+)"`', POLICIES_PAGE)) == named


@pytest.fixture
def cars(tmp_path):
    """Return a table of two numbers and categories of three and two values."""
    rows = "".join(f"{k},{k * k},{'abc'[k % 3]},{'xy'[k % 2]},{k % 2}\n" for k in range(30))
    (tmp_path / "cars.csv").write_text(f"weight,power,color,origin,y\n{rows}")
    return load(f"table:{tmp_path / 'cars.csv'}?label=y")


def test_the_one_hot_columns_of_a_category_stay_together(cars):
    alone = {"policy": "column-cutmix"}
    several = {"policy": "one-of", "policies": [{"policy": "mixup", "alpha": 1.0}, alone]}
    for settings in (alone, {"policy": "regmixup", "inner": alone}, several):
        policy = policy_of(arm_of(**settings), cars)
        policy = getattr(policy, "policy", policy)
        policy = getattr(policy, "policies", (policy,))[-1]
        assert policy.groups == (0, 1, 2, 2, 2, 3, 3)
        x = cars.train.inputs
        mixed = policy.draw(len(x), image_size=x.shape[1:]).mix(x)
        assert bool((mixed[:, 2:5].sum(1) == 1).all())
        assert bool((mixed[:, 5:].sum(1) == 1).all())
    assert policy_of(arm_of(**alone), load("iris")).groups is None


def test_groups_of_columns_that_are_grouped_already_are_refused(cars):
    with pytest.raises(UserError, match=r"groups: expected none, since the columns of each categ"):
        policy_of(arm_of(policy="column-cutmix", groups=[0, 1, 2, 2, 2, 3, 3]), cars)


@dataclasses.dataclass(frozen=True)
class Wrapped:
    """A policy of a user, with one inside that is not an argument."""

    inner: Policy = dataclasses.field(init=False, default=MixUp(1.0))

    def draw(self, size, **settings):
        return self.inner.draw(size, **settings)


def test_policies_of_a_user_may_hold_others_that_are_no_arguments(cars):
    own = {"policy": "import", "object": f"{__name__}:Wrapped"}
    assert policy_of(arm_of(**own), cars).inner == MixUp(1.0)


def test_a_plain_path_in_a_recipe_is_not_reported_as_code(small_recipe, tmp_path):
    table = tmp_path / "cars.data.csv"
    table.write_text("doors,label\n3,9000\n")
    path = small_recipe({"data.source": str(table)})
    assert code_warnings(read_recipe(str(path))) == []
