"""Time ``vicinal study DATA`` on real data of four forms; write ``results/one-line-cpu.md``.

    python benchmarks/one_line.py [NAME ...]

The data are made from those in the folder that VICINAL_SHARED names. Takes about 20 minutes on two
cores; leave the machine idle meanwhile. With names, only these studies are run.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from vicinal.reports.table_files import markdown_table
from vicinal.training.environment import hardware, versions

RESULTS = Path(__file__).parent / "results"
SHARED = Path(os.environ.get("VICINAL_SHARED", Path(__file__).parents[2] / "shared"))
FORMATS = ("png", "jpg", "bmp", "gif", "webp", "tiff")
CLASSES = {1: "automobile", 4: "deer", 6: "frog", 9: "truck"}


def images(folder: Path) -> list[str]:
    """Write 4 x 60 images of CIFAR-10 in six formats, each resized to 28 to 159 pixels a side."""
    unpack(folder, "cifar10", "--as", "npz")
    with np.load(folder / "cifar10.npz") as arrays:
        pixels, labels = arrays["train_images"], arrays["train_labels"]
    rng = np.random.default_rng(0)
    for label, name in CLASSES.items():
        (folder / "pictures" / name).mkdir(parents=True)
        for k, row in enumerate(np.flatnonzero(labels == label)[:60]):
            size = tuple(int(side) for side in rng.integers(28, 160, 2))
            image = Image.fromarray(pixels[row]).resize(size, Image.Resampling.BICUBIC)
            image.save(folder / "pictures" / name / f"{k:02}.{FORMATS[k % len(FORMATS)]}")
    return [str(folder / "pictures")]


def regression(folder: Path) -> list[str]:
    """Write 800 rows of Abalone with a categorical column and 4% of the inputs missing."""
    unpack(folder, "uci")
    names = ["sex", "length", "diameter", "height", "whole", "shucked", "viscera", "shell", "rings"]
    table = pd.read_csv(folder / "uci/abalone.data", names=names)
    table = table.sample(800, random_state=0)
    table["sex"] = table.sex.map({"M": "male", "F": "female", "I": "infant"})
    missing = np.random.default_rng(0).random((800, 8)) < 0.04
    table[names[:8]] = table[names[:8]].mask(missing)
    table.to_csv(folder / "shells.csv", index=False)
    return [f"{folder / 'shells.csv'}?label=rings&task=regression"]


def rare_positives(folder: Path) -> list[str]:
    """Write 1,500 rows of HTRU2, 5% of them pulsars, to be judged by AUROC."""
    unpack(folder, "uci")
    table = pd.read_csv(folder / "uci/HTRU_2.csv", header=None)
    table.columns = [*(f"x{k}" for k in range(8)), "pulsar"]
    rows = [table[table.pulsar == y].sample(n, random_state=0) for y, n in ((1, 75), (0, 1425))]
    pd.concat(rows).sample(frac=1, random_state=0).to_csv(folder / "pulsars.csv", index=False)
    return [f"{folder / 'pulsars.csv'}?label=pulsar", "--metric", "auroc"]


def recordings(folder: Path) -> list[str]:
    """Write the 3,000 recordings of the Free Spoken Digit Dataset."""
    unpack(folder, "spoken_digits")
    return [str(folder / "spoken_digits")]


STUDIES = {
    "240 images, 4 classes, mixed formats and sizes": images,
    "800 rows, regression, categories and missing values": regression,
    "1,500 rows, 5% positive, by AUROC": rare_positives,
    "3,000 recordings of ten words": recordings,
}


def unpack(folder: Path, *words: str) -> None:
    """Write a data set from VICINAL_SHARED into a folder."""
    script = SHARED / "data/unpack.py"
    if not script.exists():
        sys.exit(f"one_line.py: expected {script}, got none. Set VICINAL_SHARED.")
    subprocess.run([sys.executable, script, words[0], folder, *words[1:]], check=True)


def run(name: str) -> dict[str, Any]:
    """Run a study as a command; return what it printed, and its duration in minutes."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        words = STUDIES[name](folder)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "vicinal", "study", *words, "--out", folder / "out"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        minutes = (time.perf_counter() - start) / 60
        summary = json.loads((folder / "out/summary.json").read_text("utf-8"))
        print(done.stdout, f"{minutes:.1f} minutes", flush=True)
    settings, answer = summary["settings"], done.stdout.rpartition("A constant prediction")[2]
    answer = " ".join(answer.split()).partition(". ")[2].partition(" report: ")[0]
    return {
        "minutes": round(minutes, 2),
        "network": settings["model"]["name"],
        "trials": sum(row["n"] for row in summary["rows"]),
        "epochs": settings["training"]["epochs"],
        "answer": answer,
        "hardware": hardware(),
        "versions": versions(),
    }


def as_markdown(found: dict[str, dict[str, Any]]) -> str:
    """Return the table of the studies."""
    rows = [
        [
            name,
            one["network"],
            *(str(one[key]) for key in ("trials", "epochs")),
            f"{one['minutes']:.1f}",
            one["answer"],
        ]
        for name, one in found.items()
    ]
    head = ["data", "network", "trials", "epochs", "minutes", "answer"]
    last = list(found.values())[-1]
    machine = ", ".join(f"{key} {value}" for key, value in last["hardware"].items())
    software = ", ".join(f"{key} {value}" for key, value in last["versions"].items())
    return f"{markdown_table(head, '--:::-', rows)}\n\n{machine}; {software}.\n"


def main() -> None:
    """Run the studies, and write the results."""
    path = RESULTS / "one-line-cpu.json"
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if unknown := set(sys.argv[1:]) - STUDIES.keys():
        sys.exit(f"one_line.py: there is no study {unknown.pop()!r}. Choose from: {[*STUDIES]}.")
    for name in sys.argv[1:] or STUDIES:
        found[name] = run(name)
        found = {name: found[name] for name in STUDIES if name in found}
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        path.with_suffix(".md").write_text(as_markdown(found), "utf-8")


if __name__ == "__main__":
    main()
