"""Draw the figures of docs/policies.md: python docs/draw_figures.py [FOLDER]."""

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from vicinal import (
    CutMix,
    DirichletMixUp,
    FMix,
    MixUp,
    OneOf,
    RegMixUp,
    ResizeMix,
    Reverse,
    Shuffle,
)
from vicinal.reports.show import Batch, draw_plan, mixing_svg

SIZE = 96
ALONE = {"per": "example", "pairing": Reverse()}


def photographs() -> Batch:
    """Return four squares: the temple, the flower, and each of them again."""
    temple, flower = (Image.fromarray(image) for image in load_sample_images().images)
    squares = [_square(temple, 0), _square(flower, 0), _square(temple, 64), _square(flower, 213)]
    return Batch(torch.stack(squares), torch.tensor([0, 1, 0, 1]), ("temple", "flower"))


def figures() -> dict[str, str]:
    """Return each figure by its name, as SVG. The seeds were chosen to show different lam."""
    batch = photographs()
    three, two = (Batch(batch.inputs[:n], batch.targets[:n], batch.classes) for n in (3, 2))
    mixup, cutmix = MixUp(alpha=1.0, **ALONE), CutMix(alpha=1.0, **ALONE)
    dirichlet = DirichletMixUp(alpha=1.0, per="example", pairing=Shuffle(meet_self=False))
    clean_and_mixed = draw_plan(RegMixUp(MixUp(alpha=10.0, **ALONE)), batch, seed=1)
    one_of = OneOf([mixup, cutmix, None])
    seeds = {"MixUp": 11, "CutMix": 10, "none": 0}
    draws = {name: draw_plan(one_of, two, seed=seed) for name, seed in seeds.items()}
    drawn = {
        "mixup": (batch, {"MixUp": draw_plan(mixup, batch, seed=1)}),
        "cutmix": (batch, {"CutMix": draw_plan(cutmix, batch, seed=6)}),
        "resizemix": (batch, {"ResizeMix": draw_plan(ResizeMix(**ALONE), batch, seed=0)}),
        "fmix": (batch, {"FMix": draw_plan(FMix(alpha=1.0, **ALONE), batch, seed=1)}),
        "dirichlet": (three, {"DirichletMixUp": draw_plan(dirichlet, three, seed=8)}),
        "regmixup": (batch, {"RegMixUp,\nits blends": clean_and_mixed.plan}),
        "oneof": (two, {f"OneOf,\ndrew {title}": plan for title, plan in draws.items()}),
    }
    return {name: mixing_svg(name, *content) for name, content in drawn.items()}


def main(folder: Path) -> None:
    """Write the figures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in figures().items():
        (folder / f"{name}.svg").write_text(_smaller(svg), "utf-8")


def _smaller(svg: str) -> str:
    """Reduce photographs to 64 colors, and numbers to two decimals; neither is visible."""

    def reduced(found: re.Match[str]) -> str:
        image, file = Image.open(io.BytesIO(base64.b64decode(found[0]))), io.BytesIO()
        image.convert("RGB").quantize(64).save(file, "png", optimize=True)
        return base64.b64encode(file.getvalue()).decode()

    svg = re.sub(r"(?<=data:image/png;base64,)[^\"]+", reduced, svg)
    return re.sub(r"(\.\d\d)\d+", r"\1", svg)


def _square(photo: Image.Image, left: int) -> torch.Tensor:
    side = photo.height
    cut = photo.crop((left, 0, left + side, side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "figures")
