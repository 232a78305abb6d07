"""Check the intervals of studies on real tables; write ``results/real-coverage-cpu.md``.

    python benchmarks/real_coverage.py ROOT

ROOT contains ``abalone.data``, ``HTRU_2.csv`` and ``phishing.data`` of the UCI archive. Many small
samples are drawn from each table. A study compares ERM and mixup on each sample, and its networks
then predict the rows outside of the sample, by which their metrics are known to within about a
point. The 95% intervals of the studies should contain these values in 95% of the samples. Takes
about 75 minutes on one core; samples that are in ``results/real-coverage-cpu.json`` are kept.
"""

import json
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

import vicinal
from vicinal.training.environment import hardware, versions

RESULTS = Path(__file__).parent / "results"
SAMPLES = 40
OTHERS = 4000  # rows at most that tell the truth
ARMS = ("erm", "mixup")
METRICS = {
    "classification": ("accuracy", "balanced-accuracy", "auroc", "nll"),
    "regression": ("rmse", "mae", "r2"),
}
DESIGNS = {"one split": (1, 5), "five folds": (5, 3)}  # splits, seeds


def tables(root: Path) -> dict[str, tuple[pd.DataFrame, str, int]]:
    """Return each table with the task and the number of rows in a sample; the label is ``y``."""
    names = ["sex", "length", "diameter", "height", "whole", "shucked", "viscera", "shell", "y"]
    rings = pd.read_csv(root / "abalone.data", names=names)
    infants = rings.rename(columns={"y": "rings"}).assign(y=rings.sex == "I").drop(columns="sex")
    pulsars = pd.read_csv(root / "HTRU_2.csv", header=None)
    phishing = pd.read_csv(root / "phishing.data", header=None)
    for table in (pulsars, phishing):
        table.columns = [*(f"x{i}" for i in range(table.shape[1] - 1)), "y"]
    for table in (infants, pulsars, phishing):
        table["y"] = np.where(table.y.astype(int) == 1, "yes", "no")
    return {
        "Abalone, infant or not": (infants, "classification", 400),
        "HTRU2": (pulsars, "classification", 1000),
        "Phishing": (phishing, "classification", 400),
        "Abalone, rings": (rings, "regression", 400),
    }


def true_values(outputs: np.ndarray, y: np.ndarray, task: str) -> dict[str, float]:
    """Return the metrics of predictions, as scikit-learn computes them, in the units of a study."""
    if task == "regression":
        return {
            "rmse": root_mean_squared_error(y, outputs[:, 0]),
            "mae": mean_absolute_error(y, outputs[:, 0]),
            "r2": r2_score(y, outputs[:, 0]),
        }
    positive = (y == "yes").astype(int)
    chosen = outputs.argmax(1)
    taken = np.take_along_axis(outputs, positive[:, None], 1)[:, 0]
    return {
        "accuracy": 100 * accuracy_score(positive, chosen),
        "balanced-accuracy": 100 * balanced_accuracy_score(positive, chosen),
        "auroc": 100 * roc_auc_score(positive, outputs[:, 1]),
        "nll": float(-np.log(np.maximum(taken, 1e-12)).mean()),
    }


def one_sample(
    table: pd.DataFrame, task: str, rows: int, design: str, number: int
) -> dict[str, Any]:
    """Run a study on a sample of a table; return its intervals beside the values elsewhere."""
    splits, seeds = DESIGNS[design]
    order = np.random.default_rng(number).permutation(len(table))
    sample, others = table.iloc[order[:rows]], table.iloc[order[rows : rows + OTHERS]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.csv")
        sample.to_csv(path, index=False)
        done = vicinal.study(
            f"{path}?label=y&task={task}",
            arms=ARMS,
            seeds=seeds,
            epochs=20,
            settings=[f"splits={splits}", f"metrics={list(METRICS[task])}"],
            out=Path(folder, "study"),
            quiet=True,
        )
        truths = {arm: [] for arm in ARMS}
        for arm in ARMS:
            for trial in sorted((done.folder / "trials").glob(f"{arm}-*")):
                network = vicinal.load(trial)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # sizes beyond those of training
                    outputs = network(others.drop(columns="y")).numpy()
                truths[arm].append(true_values(outputs, others.y.to_numpy(), task))
    found = {}
    for metric in METRICS[task]:
        mean = {arm: float(np.mean([one[metric] for one in truths[arm]])) for arm in ARMS}
        for row in done.rows:
            cell = row["metrics"][metric]
            found[f"{metric} of {row['arm']}"] = interval(mean[row["arm"]], cell)
            if cell["difference"] is not None:
                truth = mean["mixup"] - mean["erm"]
                found[f"difference in {metric}"] = interval(truth, cell["difference"])
    found["verdict"] = next(row["verdict"] for row in done.rows if row["arm"] == "mixup")
    return found


def interval(truth: float, cell: dict[str, Any]) -> list[float]:
    """Return what is true, the estimate, and its interval."""
    return [round(one, 5) for one in (truth, cell["value"], cell["low"], cell["high"])]


def has_wrong_sign(found: dict[str, Any]) -> bool:
    """Return whether the arm that a study called better is worse, or the reverse."""
    metric = "rmse" if "difference in rmse" in found else "accuracy"
    truth, estimate, _, _ = found[f"difference in {metric}"]
    return found["verdict"] in ("better", "worse") and truth * estimate < 0


def as_markdown(result: dict[str, Any]) -> str:
    """Return a table of how many intervals contain the truth, and of their half widths."""
    lines = [
        f"| 95% interval of | table | {' | | '.join(DESIGNS)} | |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    samples = result["samples"]
    names = dict.fromkeys((key.split("|")[1], name) for key in samples for name in samples[key])
    for table, name in names:
        if name == "verdict":
            continue
        cells = []
        for design in DESIGNS:
            of = [samples[key][name] for key in samples if key.startswith(f"{design}|{table}|")]
            inside = np.mean([low <= truth <= high for truth, _, low, high in of])
            half = np.mean([(high - low) / 2 for _, _, low, high in of])
            cells += [f"{100 * inside:.0f}%", f"±{half:.3g}"]
        lines.append(f"| {name} | {table} | {' | '.join(cells)} |")
    for design in DESIGNS:
        of = [one for key, one in samples.items() if key.startswith(design)]
        counts = Counter(one["verdict"] for one in of)
        wrong = sum(has_wrong_sign(one) for one in of)
        counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        decided = counts["better"] + counts["worse"]
        text = f"{wrong} of the {decided} differences found have the opposite sign elsewhere"
        lines += ["", f"Verdicts with {design}: {counted}; {text}."]
    note = (
        f"{SAMPLES} samples of each table. The truth is the mean of the metric of the networks of "
        f"the study on up to {OTHERS:,} rows outside of the sample."
    )
    machine = ", ".join(f"{key} {value}" for key, value in result["hardware"].items())
    software = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    return "\n".join([*lines, "", note, "", f"{machine}; {software}.", ""])


def main() -> None:
    """Run the studies, and write the results."""
    if len(sys.argv) != 2:
        sys.exit("real_coverage.py: expected one argument, the folder with the tables.")
    path = RESULTS / "real-coverage-cpu.json"
    samples = json.loads(path.read_text())["samples"] if path.exists() else {}
    result = {"hardware": hardware(), "versions": versions(), "samples": samples}
    for design in DESIGNS:
        for name, (table, task, rows) in tables(Path(sys.argv[1])).items():
            for number in range(SAMPLES):
                key = f"{design}|{name}|{number}"
                if key not in samples:
                    samples[key] = one_sample(table, task, rows, design, number)
                    print(key, samples[key]["verdict"], flush=True)
                    path.write_text(json.dumps(result) + "\n")
    (RESULTS / "real-coverage-cpu.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
