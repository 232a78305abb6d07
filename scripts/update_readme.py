"""Write the tables of README.md from results/ and benchmarks/results/.

    python scripts/update_readme.py

Replaces the text between ``<!-- generated: NAME -->`` and ``<!-- end -->``.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

from vicinal.reports.claims_page import measure_title
from vicinal.reports.summary_values import measure_text
from vicinal.reports.table_files import markdown_table
from vicinal.studies.claims import Claim

ROOT = Path(__file__).parents[1]
TITLES = {"erm": "ERM", "mixup": "input mixup"}


def updated(text: str) -> str:
    """Return a text with every generated block written anew."""
    return re.sub(
        r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{block(found[2])}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def block(name: str) -> str:
    """Return the content of a block."""
    if name == "mixing":
        return _mixing()
    if name == "training":
        return _training()
    if name == "cifar10-fast":
        return _fast()
    if name == "cifar10-resnet50-90":
        return _published(name)
    if name == "claims":
        return _claims()
    lines = (ROOT / "results" / name / "table.md").read_text("utf-8").splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("|"))
    return "\n".join(lines[first : lines.index("", first)])


def _mixing() -> str:
    """Return a row for each case: vicinal, what it is compared with, and the fastest library."""
    result = _json("benchmarks/results/mixing-cpu.json")
    libraries = {p["name"] for p in result["peers"]} - {"textbook expression"}
    cases: dict[tuple[str, str], dict[str, float]] = {}
    for row in result["cases"]:
        if row["dtype"] == "float32" and row["version"] != "stand-in":
            shape = "x".join(map(str, row["shape"]))
            times = cases.setdefault((row["case"], shape), {})
            times[row["contender"]] = row["median_ms"]
    rows = []
    for (case, shape), times in cases.items():
        compared, *_ = times
        ours = next(n for n in times if n.startswith("vicinal") and n != compared)
        plain = [n for n in times if n in {"textbook expression", "soft targets, one-hot"}]
        fastest = min((n for n in times if n in libraries), key=lambda n: times[n], default=None)
        rows.append(
            [
                f"{case}, {shape}",
                f"{times[ours]:.3g}",
                f"{times[compared]:.3g} ({compared})",
                f"{times[plain[0]]:.3g}" if plain else "—",
                f"{times[fastest]:.3g} ({fastest})" if fastest else "—",
            ]
        )
    head = ["float32, ms", "vicinal", "compared with", "plain PyTorch", "fastest library"]
    return markdown_table(head, "-::::", rows)


def _training() -> str:
    """Return a row for each ratio of training speeds, with a column for each network."""
    checks = _json("benchmarks/results/training-cpu.json")["checks"]
    networks = list(dict.fromkeys(row["network"] for row in checks))
    ratios: dict[str, dict[str, str]] = {}
    for row in checks:
        ratios.setdefault(row["ratio"], {})[row["network"]] = f"{row['median']:.2f}"
    rows = [[ratio, *(found.get(n, "—") for n in networks)] for ratio, found in ratios.items()]
    return markdown_table(
        ["ratio of images per second", *networks], "-" + ":" * len(networks), rows
    )


def _fast() -> str:
    """Return a row for each trial of the two studies of cifar10-fast."""
    rows = []
    for study in ("cifar10-fast", "cifar10-fast-long"):
        for path in sorted(ROOT.glob(f"results/{study}/trials/*/result.json")):
            result = _json(path)
            rows.append(
                [
                    study,
                    TITLES[result["arm"]],
                    str(result["epochs"]),
                    str(result["seed"]),
                    f"{100 * result['test_accuracy']:.2f}",
                    f"{result['seconds'] / 60:.1f}",
                ]
            )
    head = ["results", "arm", "epochs", "seed", "test accuracy, %", "minutes"]
    return markdown_table(head, "--::::", rows)


def _published(study: str) -> str:
    """Return a row for each published result of a study: published beside measured."""
    rows = []
    with (ROOT / "results" / study / "published.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            measured = f"{float(row['measured']):.2f}" if row["measured"] else "—"
            rows.append([row["title"], row["epochs"], f"{float(row['accuracy']):.2f}", measured])
    head = ["arm", "epochs", "published, %", "measured, one seed, %"]
    return markdown_table(head, "-:::", rows)


def _claims() -> str:
    """Return a row for each claim: published, measured, and the verdict."""
    rows = []
    for one in _json("results/claims/claims.json"):
        difference, verdict = (one["row"] or {}).get("difference"), one["verdict"]
        measured = "—"
        if difference:
            percent, title = one["percent"], measure_title(Claim.model_validate(one["claim"]))
            text = measure_text(difference, percent=percent, unit=" points" * percent, sign=True)
            measured = f"{title.removesuffix(', %')}: {text}"
        rows.append([one["claim"]["claim"], one["claim"]["published"], measured, verdict])
    return markdown_table(["claim", "published", "difference here", "verdict"], "----", rows)


def _json(path: str | Path) -> Any:
    return json.loads((ROOT / path).read_text("utf-8"))


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(updated(readme.read_text("utf-8")), "utf-8")
