"""The arms of a recipe: their tables, derived from the signatures of policies and pairings.

Every class in ``vicinal.mixing.registry`` gets a table with a field for each of its arguments, of
the type and with the default in its signature. Building it checks the values that a type cannot.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import pydantic
from pydantic import Discriminator, Field, Tag

from vicinal.data import DataSet
from vicinal.data.tables.columns import TablePreparation
from vicinal.errors import UserError, unknown
from vicinal.import_path import import_object, one_line
from vicinal.mixing import ColumnCutMix, MixUp, OtherBatch, Pairing, Policy
from vicinal.mixing.registry import PAIRINGS, POLICIES
from vicinal.training.augmentation import Transform, keeps_size
from vicinal.training.recipe_table import Settings

_ONE_BATCH = (
    "a training step has one batch, so its partners are of that batch. Choose another pairing; "
    "other-batch can be used in your own training loop"
)


class Arm(Settings):
    """The fields of every arm; ``AnyArm`` is the type of the arms of a recipe."""

    title: str = Field("", description="name in tables and figures; default: from the policy")
    policy: Any  # a name, which each table narrows to its own
    training: dict[str, Any] = Field({}, description="changes to [training] for this arm")
    augment: Annotated[
        tuple[Annotated[Transform, pydantic.AfterValidator(keeps_size)], ...], Field(strict=False)
    ] = Field((), description="transforms of this arm, after those of data.augment")


class NoPolicy(Settings):
    """No mixing, as one of several policies."""

    policy: Literal["none"]

    def build(self, *, imports: bool = True) -> None:
        """Return None."""


class PlainArm(NoPolicy, Arm):
    """An arm without mixing: empirical risk minimization."""


class MixingArm(Arm):
    """The fields of every arm that mixes, in addition to those of its policy."""

    at: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        ("input",),
        description='layers to mix after, one drawn for each step: "input" or module names',
    )
    unmixed_epochs_at_start: int = Field(0, ge=0, description="epochs at the start without mixing")
    unmixed_epochs_at_end: int = Field(0, ge=0, description="epochs at the end without mixing")


class BuiltTable(Settings):
    """A table from whose fields a policy or a pairing is built."""

    builds: ClassVar[type]

    def build(self, *, imports: bool = True) -> Any:
        """Return the policy or the pairing.

        Args:
            imports: whether code of the user may be imported. If not, another policy stands for it.
        """
        arguments = {
            one.name: _built(getattr(self, field_name(one.name)), imports)
            for one in dataclasses.fields(self.builds)
        }
        return self.builds(**arguments)

    @pydantic.model_validator(mode="after")
    def _check_values(self) -> "BuiltTable":
        try:
            self.build(imports=False)
        except (TypeError, ValueError) as error:
            text = str(error).removeprefix(f"{self.builds.__name__}: ")
            names = "|".join(field_name(one.name) for one in dataclasses.fields(self.builds))
            # The message names the argument.
            named = re.search(rf"\b({names})\b", text) if names else None
            raise ValueError(f".{named[1]}: {text}" if named else text) from None
        return self


def _checked_path(path: str) -> str:
    module, _, name = path.partition(":")
    if not all(word.isidentifier() for word in (*module.split("."), *name.split("."))):
        raise ValueError(f'expected "package.module:Policy", got {path!r}')
    return path


class ImportedPolicy(Settings):
    """A policy of the user's own: a class, another callable that returns one, or an instance.

    Only the form of the path is validated. The code is imported when the policy is built.
    """

    policy: Literal["import"]
    object: Annotated[str, pydantic.AfterValidator(_checked_path)] = Field(
        description="package.module:NAME"
    )
    options: dict[str, Any] = Field({}, description="keyword arguments of the class or callable")

    def build(self, *, imports: bool = True) -> Any:
        """Import and return the policy.

        Raises:
            UserError: if it cannot be imported or called, or has no method ``draw``.
        """
        if not imports:
            return MixUp(1.0)
        found = import_object(self.object)
        if isinstance(found, type) or not hasattr(found, "draw"):
            try:
                found = found(**self.options)
            except Exception as error:  # code of the user
                raise UserError(
                    f"{self.object} cannot be called with the options "
                    f"{', '.join(self.options) or '(none)'} ({one_line(error)})"
                ) from error
        elif self.options:
            raise UserError(
                f"{self.object} is an object, which takes no options. Remove them, or name its "
                "class."
            )
        if not callable(getattr(found, "draw", None)):
            raise UserError(
                f"{self.object}: expected a policy, with the method draw of vicinal.Policy, got "
                f"{type(found).__name__}"
            )
        return found


def _built(value: Any, imports: bool) -> Any:
    if isinstance(value, tuple):
        return tuple(_built(one, imports) for one in value)
    return value.build(imports=imports) if hasattr(value, "build") else value


def field_name(argument: str) -> str:
    """Return the name of an argument in a recipe, where ``policy`` is the name of the policy."""
    return "inner" if argument == "policy" else argument


def _one_of(
    tables: Mapping[str, type[Settings]], tag: str, what: str, *, name_alone: bool = True
) -> Any:
    """Return the type of a table that is one of several, chosen by its field ``tag``.

    Args:
        tables: by name.
        tag: ``"name"`` or ``"policy"``.
        what: what they are, for errors.
        name_alone: whether the name alone stands for a table with the defaults.
    """

    def check_name(value: Any) -> Any:
        alone = isinstance(value, str)
        name = value if alone else value.get(tag) if isinstance(value, dict) else None
        if not isinstance(name, str) or (alone and not name_alone):
            return value
        if name not in tables:
            refused = name == "other-batch" and what == "pairing"
            text = _ONE_BATCH if refused else unknown(what, name, tables)
            raise ValueError(text if alone else f".{tag}: {text}")
        return {tag: name} if alone else value

    union = reduce(or_, tables.values())
    return Annotated[union, Field(discriminator=tag), pydantic.BeforeValidator(check_name)]


def _recipe_type(hint: Any, inner: Mapping[str, type[Settings]]) -> Any:
    """Return the type of a field of a recipe for the type of an argument.

    Args:
        hint: type hint of the argument.
        inner: tables of the policies that it may be or contain.
    """
    if hint is Pairing:
        return PAIRING
    origin, several = get_origin(hint), get_args(hint)
    if hint is Policy or set(several) == {Policy, NoneType}:
        none: dict[str, type[Settings]] = {"none": NoPolicy} if several else {}
        return _one_of(none | dict(inner), "policy", "policy")
    kinds: Any = tuple(one if one is ... else _recipe_type(one, inner) for one in several)
    if origin in (tuple, Sequence):
        listed: Any = tuple[(*kinds, ...) if origin is Sequence else kinds]  # type: ignore[misc]
        return Annotated[listed, Field(strict=False)]  # TOML has lists only
    if origin not in (Union, UnionType):
        return hint
    if get_origin(several[-1]) is tuple:
        # A list is checked as a tuple only, and other values as the other type, so that an error
        # is about one of them.
        kinds = (Annotated[kinds[0], Tag("one")], Annotated[kinds[1], Tag("list")])
        return Annotated[reduce(or_, kinds), Discriminator(_one_or_list)]
    return reduce(or_, kinds)


def _one_or_list(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else "one"


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is dataclasses.MISSING:
        return ... if field.default is dataclasses.MISSING else field.default
    default = field.default_factory()
    names = {kind: name for name, kind in PAIRINGS.items()}
    if type(default) not in names:
        return default
    fields = {one.name: getattr(default, one.name) for one in dataclasses.fields(default)}
    return pydantic.TypeAdapter(PAIRING).validate_python({"name": names[type(default)], **fields})


def _table(
    name: str, kind: type, tag: str, inner: Mapping[str, type[Settings]] | None = None
) -> type[BuiltTable]:
    """Return the table of a policy or a pairing, derived from its signature."""
    hints = get_type_hints(kind)
    _, _, listed = (inspect.getdoc(kind) or "").partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w|^\S|\Z)", listed, re.M | re.S)
    texts = {argument: " ".join(text.split()) for argument, text in found}
    fields: dict[str, Any] = {tag: (Literal[name], ...)}
    for one in dataclasses.fields(kind):
        described = Field(_default(one), description=texts.get(one.name))
        fields[field_name(one.name)] = (_recipe_type(hints[one.name], inner or {}), described)
    table = pydantic.create_model(
        f"{kind.__name__}Table",
        __base__=BuiltTable,
        __doc__=f"``vicinal.{kind.__name__}``.",
        **fields,
    )
    table.builds = kind
    return table


PAIRING = _one_of(
    {name: _table(name, kind, "name") for name, kind in PAIRINGS.items() if kind is not OtherBatch},
    "name",
    "pairing",
)
"""The type of a pairing in a recipe."""


def _policy_tables() -> dict[str, type[Settings]]:
    tables: dict[str, type[Settings]] = {}
    for name, kind in POLICIES.items():
        tables[name] = _table(name, kind, "policy", {**tables, "import": ImportedPolicy})
    return {**tables, "import": ImportedPolicy}


def _arm(table: type[Settings]) -> type[MixingArm]:
    """Return the table of an arm with a policy."""
    bases: Any = (table, MixingArm)
    made: type[MixingArm] = pydantic.create_model(
        table.__name__.replace("Table", "Arm"), __base__=bases, __doc__=table.__doc__
    )
    return made


ARMS: dict[str, type[Arm]] = {
    "none": PlainArm,
    **{name: _arm(table) for name, table in _policy_tables().items()},
}
"""The table of an arm by the name of its policy."""

_ANY_ARM = _one_of(ARMS, "policy", "policy", name_alone=False)

AnyArm = Annotated[
    Arm, pydantic.GetPydanticSchema(lambda _, handler: handler.generate_schema(_ANY_ARM))
]
"""The type of an arm in a recipe: one of ``ARMS``, by the name of its policy."""


def policy_of(arm: Arm, data: DataSet | None = None) -> Policy | None:
    """Return the policy of an arm; None if it does not mix.

    Args:
        arm: the arm.
        data: what it mixes. ``ColumnCutMix`` keeps the one-hot columns of a category together.

    Raises:
        UserError: if a policy of the user's own cannot be imported, or has groups for columns that
            are grouped already.

    Example:
        >>> arm = {"policy": "cutmix", "pairing": {"name": "nearest", "k": 3}}
        >>> policy_of(pydantic.TypeAdapter(AnyArm).validate_python(arm)).pairing
        Nearest(k=3)
    """
    policy: Policy | None = _built(arm, imports=True)
    if policy is None or data is None or data.preparation.get("kind") != "table":
        return policy
    given = TablePreparation.model_validate(data.preparation)
    if not given.widths:
        return policy
    ones = [1] * len(given.numbers.columns)
    groups = [k for k, n in enumerate([*ones, *given.widths]) for _ in range(n)]
    grouped: Policy = _grouped(policy, groups)
    return grouped


def _grouped(policy: Any, groups: Sequence[int]) -> Any:
    """Return a policy with the groups of the columns, also in the policies that it consists of."""
    if isinstance(policy, ColumnCutMix):
        if policy.groups is not None:
            raise UserError(
                "groups: expected none, since the columns of each category of this table are one "
                "group already. Remove it"
            )
        return dataclasses.replace(policy, groups=groups)
    inner = {}
    fields = dataclasses.fields(policy) if dataclasses.is_dataclass(policy) else ()
    for field in (one for one in fields if one.init):
        value = getattr(policy, field.name)
        if hasattr(value, "draw"):
            inner[field.name] = _grouped(value, groups)
        elif isinstance(value, tuple) and any(hasattr(one, "draw") for one in value):
            inner[field.name] = tuple(_grouped(one, groups) for one in value)
    return dataclasses.replace(policy, **inner) if inner else policy


def imported_policies(table: Settings) -> Iterator[str]:
    """Yield the import path of each user-defined policy of an arm, including inner ones.

    Example:
        >>> own = {"policy": "import", "object": "my.policies:Fading"}
        >>> list(imported_policies(ARMS["regmixup"](policy="regmixup", inner=own)))
        ['my.policies:Fading']
    """
    if isinstance(table, ImportedPolicy):
        yield table.object
    for name in type(table).model_fields:
        value = getattr(table, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Settings):
                yield from imported_policies(one)
