"""The base of all tables of a recipe."""

from collections.abc import Iterable
from typing import Any

import pydantic

from vicinal.errors import unknown
from vicinal.training.recipe_errors import error_lines


def raise_all(problems: Iterable[str]) -> None:
    """Raise one error for all problems, if there are any; see ``recipe_errors.error_lines``."""
    if lines := "\n".join(problems):
        raise ValueError(lines)


class Settings(pydantic.BaseModel):
    """The base class of all recipe tables."""

    model_config = pydantic.ConfigDict(frozen=True, strict=True, ser_json_inf_nan="strings")

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _collect_problems(
        cls, values: Any, handler: pydantic.ModelWrapValidatorHandler[Any]
    ) -> Any:
        if not isinstance(values, dict):
            return handler(values)
        known, problems, made = cls.model_fields, [], None
        try:
            made = handler({name: value for name, value in values.items() if name in known})
        except pydantic.ValidationError as error:
            problems = [f".{line}" for line in error_lines(error, values)]
        problems += [
            f".{one:.80}: {unknown('field', one, known)}" for one in values if one not in known
        ]
        raise_all(problems + cls._problems(values))
        return made

    @classmethod
    def _problems(cls, values: dict[str, Any]) -> list[str]:
        """Return problems between fields, some of which may be invalid or missing."""
        return []
