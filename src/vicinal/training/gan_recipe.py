"""The recipe of a study of GANs on mixtures of Gaussians."""

from typing import Annotated, Any

from pydantic import Field

from vicinal.errors import UserError
from vicinal.generative.toy import Arm, GeneratorLoss, Mixture
from vicinal.training.recipe import read_settings, validated
from vicinal.training.recipe_changes import Changes, change
from vicinal.training.recipe_table import Settings
from vicinal.training.settings import Name


class Gan(Settings):
    """The ``[gan]`` table; see ``vicinal.generative.toy.train``."""

    data: Annotated[tuple[Mixture, ...], Field(strict=False)] = Field(
        ("grid", "ring"), min_length=1, description="the mixtures of Gaussians"
    )
    arms: Annotated[tuple[Arm, ...], Field(strict=False)] = Field(
        ("plain", "paper", "author"),
        min_length=1,
        description="how the discriminator is trained; the first arm is the baseline",
    )
    generator_loss: GeneratorLoss = Field("minimax", description="the loss of the generator")
    iterations: int = Field(20_000, ge=1, description="steps of the generator")
    discriminator_steps: int = Field(5, ge=1, description="before each step of the generator")
    batch_size: int = Field(128, ge=2, description="real rows of a step, and generated rows")
    latent: int = Field(2, ge=1, description="dimensions of the noise")
    width: int = Field(512, ge=1, description="of each of the three hidden layers")
    std: float = Field(0.01, gt=0, le=0.1, description="of each Gaussian")
    alpha: float = Field(0.2, ge=0, allow_inf_nan=False, description='of the arm "paper"')
    share: float = Field(0.2, ge=0, le=1, description='of the arm "author"')
    processes: int | None = Field(
        None, ge=1, description="how many GANs are trained at a time; by default one for each core"
    )

    @classmethod
    def _problems(cls, values: dict[str, Any]) -> list[str]:
        return [
            f".{field}: expected each name once."
            for field in ("data", "arms")
            if isinstance(names := values.get(field), list | tuple)
            and len(set(map(str, names))) < len(names)
        ]


class GanRecipe(Settings):
    """A recipe with a table ``[gan]``."""

    name: Name = Field(description="lowercase letters, digits and dashes; the folder in runs/")
    seeds: int = Field(5, ge=1, description="GANs of each arm, with different weights and noise")
    gan: Gan


def read_gan_recipe(
    name_or_path: str,
    *,
    variant: str | None = None,
    changes: Changes = Changes(),  # noqa: B008
) -> GanRecipe:
    """Read a recipe of GANs; arguments and errors as of ``vicinal.training.recipe.read_recipe``.

    Example:
        >>> read_gan_recipe("paper-gan").gan.iterations
        20000
    """
    given = changes._asdict()
    for name in ("epochs", "data", "arms", "alpha", "model", "metric"):
        if given[name] not in (None, ()):
            raise UserError(
                f"--{name}: expected a recipe for classifiers or regression, got one for GANs. Use "
                "--set, such as --set gan.iterations=1000."
            )
    settings = read_settings(name_or_path, variant=variant)
    change(settings, changes)
    return validated(GanRecipe, settings, name_or_path)
