"""Arms by name, with the settings that are common in publications."""

import copy
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

import pydantic

from vicinal.errors import UserError, unknown
from vicinal.mixing.registry import POLICIES
from vicinal.training.arm_titles import titled
from vicinal.training.arms import ARMS, AnyArm, Arm

_PUBLISHED: dict[str, dict[str, Any]] = {
    # Zhang et al., arXiv 1710.09412, section 3.1: 0.1 to 0.4 for ImageNet.
    "mixup": {"alpha": 0.2},
    # The same, section 3.8. Three parents and the whole simplex, as with alpha = 1 in mixup.
    "dirichlet": {"alpha": 1.0},
    # Pinto et al., arXiv 2206.14502, section 3.
    "regmixup": {"inner": {"policy": "mixup", "alpha": 10.0}},
    # Touvron et al., arXiv 2012.12877, table 9.
    "one-of": {"policies": [{"policy": "mixup", "alpha": 0.8}, {"policy": "cutmix", "alpha": 1.0}]},
}
"""The settings that have no default in the signature of a policy, or another one there."""

SHORTHANDS = ("erm", *POLICIES, "manifold", "c-mixup")
"""The names that ``shorthand_arms`` knows."""


def shorthand_arms(names: Iterable[str], *, layers: Sequence[str] = ()) -> dict[str, Arm]:
    """Return arms by name, with titles.

    ``erm`` does not mix, ``manifold`` is mixup at the input and at layers, ``c-mixup`` pairs
    examples with similar real-valued targets, and other names are those of policies. CutMix (arXiv
    1905.04899), ResizeMix (2012.11101) and FMix (2002.12047) have the settings of their papers by
    default.

    Args:
        names: some of ``SHORTHANDS``.
        layers: layers of the network, for ``manifold``.

    Raises:
        UserError: if a name is unknown, or ``manifold`` has no layers.

    Example:
        >>> arms = shorthand_arms(["erm", "cutmix", "manifold"], layers=["stage1", "stage2"])
        >>> {name: arm.title for name, arm in arms.items()}
        {'erm': 'ERM', 'cutmix': 'CutMix', 'manifold': 'manifold mixup (alpha 2)'}
    """
    settings = {name: _settings(name, layers) for name in names}
    arms = pydantic.TypeAdapter(dict[str, AnyArm]).validate_python(settings)
    return titled(arms)


def _settings(name: str, layers: Sequence[str]) -> dict[str, Any]:
    if name not in SHORTHANDS:
        raise UserError(f"{unknown('arm', name, SHORTHANDS)}.")
    if name == "erm":
        return {"policy": "none"}
    if name == "c-mixup":
        # Yao et al., arXiv 2210.05775, tune both; networks learn targets with a std of 1.
        pairing = {"name": "similar-targets", "bandwidth": 0.5}
        return {"policy": "mixup", "alpha": 2.0, "pairing": pairing}
    if name != "manifold":
        return {"policy": name, **copy.deepcopy(_PUBLISHED.get(name, {}))}
    if not layers:
        raise UserError(
            "manifold: expected a network whose layers are known, got another one. Choose mixup, "
            'or write an arm with at = ["LAYER", ...] into a recipe.'
        )
    at = ["input", *layers]
    # Verma et al., arXiv 1806.05236, section 4.
    return {"policy": "mixup", "alpha": 2.0, "at": at}


def set_alpha(table: MutableMapping[str, Any], alpha: float) -> bool:
    """Set alpha in the table of a policy and in those of its inner policies.

    Args:
        table: table of an arm or a policy, as in TOML.
        alpha: the new value.

    Returns:
        Whether one of the policies has an alpha.
    """
    inner = [table["inner"]] if "inner" in table else table.get("policies", [])
    found = [set_alpha(one, alpha) for one in inner]
    if table.get("policy") not in ARMS or "alpha" not in ARMS[table["policy"]].model_fields:
        return any(found)
    table["alpha"] = float(alpha)
    return True
