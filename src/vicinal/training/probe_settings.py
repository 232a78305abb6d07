"""The probes of a recipe: measurements of every trained network of a study."""

from typing import Annotated

from pydantic import AfterValidator, Field

from vicinal.training.recipe_table import Settings

Count = Annotated[int, Field(ge=1, lt=1 << 31)]


class Attacks(Settings):
    """``vicinal.probes.attacks``, on images: white box, and transferred from another network."""

    epsilons: Annotated[
        tuple[Annotated[float, Field(gt=0, le=255)], ...],
        Field(strict=False, min_length=1),
        AfterValidator(lambda values: tuple(sorted(set(values)))),
    ] = Field(
        (1.0, 2.0, 4.0, 8.0), description="largest changes of a pixel, in 255ths of its range"
    )
    examples: Count = Field(
        1000, description="how many test examples are attacked, at most: a random sample"
    )
    restarts: Count = Field(1, description="random starts of PGD, the worst of which counts")
    top: Count = Field(1, description="largest k of top-k accuracies: also measured if above 1")


class Between(Settings):
    """``vicinal.probes.between``: predictions along lines between training examples."""

    pairs: Count = Field(500, description="how many pairs of training examples are joined")


class OutOfDistribution(Settings):
    """``vicinal.probes.ood``: whether examples of another data set are less confident."""

    source: str = Field(description="the other data set, prepared as the data of the study")


class Probes(Settings):
    """What is measured on every trained network, besides the metrics."""

    attacks: Attacks | None = None
    between: Between | None = None
    calibration: bool = Field(
        False, description="ECE, NLL and Brier score: raw, temperature-scaled, and of all seeds"
    )
    memorization: bool = Field(
        False, description="errors on training examples with real and with corrupted labels"
    )
    ood: OutOfDistribution | None = None
