"""The base of all tables of a recipe."""

from collections.abc import Iterable
from typing import Any

import pydantic

from vicinal.errors import unknown


def raise_all(problems: Iterable[str]) -> None:
    """Raise one error for all problems, if there are any; see ``recipe_errors.error_lines``."""
    if lines := "\n".join(problems):
        raise ValueError(lines)


class Settings(pydantic.BaseModel):
    """The base class of all recipe tables."""

    model_config = pydantic.ConfigDict(frozen=True, strict=True, ser_json_inf_nan="strings")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        known = cls.model_fields
        fields = values if isinstance(values, dict) else {}
        raise_all(
            f".{one:.80}: {unknown('field', one, known)}" for one in fields if one not in known
        )
        return values
