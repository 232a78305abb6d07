"""Train a small network on each table and on spoken digits; write ``results/learning-cpu.md``.

    python benchmarks/learning.py ROOT

ROOT contains the UCI files (or a folder ``uci`` with them) and ``spoken_digits``, which has a
folder for each word. If the data sets are read correctly, a network is more accurate than always
predicting the most frequent class. Takes about two minutes on two cores.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from vicinal.data import Loader, load, normalization_of
from vicinal.data.threads import cpu_threads
from vicinal.models import build
from vicinal.training.devices import make_fabric
from vicinal.training.environment import hardware, versions
from vicinal.training.evaluation import predict
from vicinal.training.loop import make_learner, train
from vicinal.training.settings import AdamW, OneCycle, Training

RESULTS = Path(__file__).parent / "results"
TABLES = ("abalone", "arcene", "arrhythmia", "htru2", "iris", "phishing")
SEED = 0


def learned(spec: str, network: str, *, root: str, epochs: int) -> dict[str, Any]:
    """Load a data set, train and test; return counts and accuracies."""
    began = time.perf_counter()
    data = load(spec, root=root, seed=SEED, test_fraction=0.3)
    loading = time.perf_counter() - began
    steps = [normalization_of(data.train)]
    batch_size = 64 if len(data.train) > 2000 else 16
    loader = Loader(data.train, batch_size=batch_size, seed=SEED, augment=steps)
    tested = Loader(data.test, batch_size=1024, seed=SEED, augment=steps, shuffle=False)
    torch.manual_seed(SEED)
    shape = tuple(data.train.inputs.shape[1:])
    model = build(network, shape=shape, classes=len(data.classes))
    fabric = make_fabric(accelerator="cpu")
    settings = Training(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=AdamW(name="adamw", lr=0.003, weight_decay=0.01),
        schedule=OneCycle(name="one-cycle"),
        weight_decay_on="all",
    )
    learner = make_learner(model, settings, fabric=fabric)
    with cpu_threads(1):  # small steps are slower with two threads
        for _ in train(learner, loader, seed=SEED):
            pass
    most = data.train.targets.bincount().argmax()
    return {
        "data": spec,
        "train": len(data.train),
        "test": len(data.test),
        "validation": len(data.validation) if data.validation else 0,
        "shape": list(shape),
        "classes": len(data.classes),
        "network": network,
        "epochs": epochs,
        "loading_s": round(loading, 2),
        "majority": float((data.test.targets == most).double().mean()),
        "accuracy": predict(model, tested.epoch(0)).metric("accuracy", "classification"),
    }


def as_markdown(result: dict[str, Any]) -> str:
    """Return the table."""
    lines = [
        "| data | train | valid. | test | shape | classes | network | majority, % | accuracy, % |",
        "| --- | --: | --: | --: | --- | --: | --- | --: | --: |",
    ]
    for row in result["rows"]:
        shape = "x".join(map(str, row["shape"]))
        lines.append(
            f"| {row['data']} | {row['train']} | {row['validation']} | {row['test']} | {shape} | "
            f"{row['classes']} | {row['network']} | {100 * row['majority']:.1f} | "
            f"{100 * row['accuracy']:.1f} |"
        )
    note = (
        "One seed, without mixing. This only checks that the data sets are read correctly. "
        "Majority is the accuracy of always predicting the most frequent class."
    )
    machine = ", ".join(f"{key} {value}" for key, value in result["hardware"].items())
    software = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    return "\n".join([*lines, "", note, "", f"{machine}; {software}.", ""])


def main() -> None:
    """Train on all data sets, and write the results."""
    if len(sys.argv) != 2:
        sys.exit("learning.py: expected one argument, the folder with the data sets.")
    root = sys.argv[1]
    rows = [learned(name, "mlp", root=root, epochs=20) for name in TABLES]
    spoken = "commands:spoken_digits"
    rows.append(learned(spoken, "small-cnn", root=root, epochs=10))
    result = {"hardware": hardware(), "versions": versions(), "rows": rows}
    (RESULTS / "learning-cpu.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "learning-cpu.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
