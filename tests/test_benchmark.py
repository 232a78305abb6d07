"""The benchmark of mixing: a smoke test of the real run, and the arithmetic of its report."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def mixing(monkeypatch):
    """Import the benchmark, as a script finds its modules; libraries are missing."""
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("mixing")
    for name in ("_torchvision", "_kornia"):
        monkeypatch.setattr(module, name, lambda: importlib.import_module("no_such_library"))
    monkeypatch.setattr(module, "_timm", lambda mode: importlib.import_module("no_such_library"))
    return module


def test_a_quick_run_writes_a_report_of_every_contender_and_bound(mixing, tmp_path, monkeypatch):
    build = mixing.Cases.in_place
    monkeypatch.setattr(mixing.Cases, "build", lambda self: [build(self, (4, 3, 8, 8), F32, 1e9)])
    sizes = {(3, 8, 8): [2, 4]}
    monkeypatch.setattr(mixing, "QUICK", mixing.QUICK._replace(sizes=sizes))
    mixing.main(["--quick", "--device", "cpu", "--out", str(tmp_path)])
    result, text, figure = sorted(tmp_path.iterdir())
    assert figure.stem in {"mixing-cpu", "mixing-cpu-without-c"}
    text, result = text.read_text(), json.loads(result.read_text())
    assert result["quick"]
    copy, *others = result["cases"]
    names = [row["contender"] for row in others]
    assert names[:2] == ["vicinal, per example", "vicinal, per batch"]
    assert names[-1] == "textbook expression"
    for row in result["cases"]:
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        assert row["ratio"] == pytest.approx(row["median_ms"] / copy["median_ms"])
        assert f"| {row['contender']} |" in text
    assert [row["met"] for row in result["targets"]] == [True, True]
    assert [row["measured"] for row in result["targets"]] == [row["ratio"] for row in others[:2]]
    assert [row["batch"] for row in result["scaling"]] == [2] * 4 + [4] * 4
    words = "".join(ElementTree.parse(figure).getroot().itertext())
    for row in result["scaling"]:
        assert row["contender"] in words
    for name in ("torchvision", "timm batch", "timm elem", "kornia"):
        assert any(note.startswith(f"{name} is missing") for note in result["notes"])


F32 = torch.float32


def test_libraries_that_work_take_part_and_others_are_reported(mixing, monkeypatch):
    monkeypatch.setattr(mixing, "_torchvision", lambda: lambda x, labels: (x, labels))

    def broken(x, labels):
        raise RuntimeError("operator does not exist\nand more")

    monkeypatch.setattr(mixing, "_kornia", lambda: broken)
    monkeypatch.setattr(mixing, "metadata", SimpleNamespace(version=lambda name: f"{name}-7"))
    build = mixing.Cases.in_place
    monkeypatch.setattr(mixing.Cases, "build", lambda self: [build(self, (4, 3, 8, 8), F32, 0.0)])
    result = mixing.measure(torch.device("cpu"), mixing.QUICK._replace(sizes={}))
    assert result["peers"][0] == {"name": "torchvision", "version": "torchvision-7"}
    assert result["cases"][-1]["contender"] == "torchvision"
    assert result["cases"][-1]["version"] == "torchvision-7"
    assert (
        "kornia cannot mix float32 on cpu (RuntimeError: operator does not exist)"
        in (result["notes"])
    )
    assert [row["met"] for row in result["targets"]] == [False, False]


def test_every_contender_is_timed_equally_often_at_each_position(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    timing = importlib.import_module("timing")
    orders = [timing.order_of_round("abc", done) for done in range(6)]
    for position in range(3):
        assert sorted(order[position] for order in orders) == sorted("aabbcc")


def test_the_bounds_are_those_of_the_batches_that_they_are_for(mixing, monkeypatch):
    cases = mixing.Cases(torch.device("cpu"), mixing.FULL, {})
    monkeypatch.setattr(cases, "_batch", lambda shape, dtype: torch.zeros(1))
    for kernel, bounds in (("native", (1.0, 1.5)), ("portable", (1.5, 3.0))):
        monkeypatch.setattr(
            mixing.kernels, "kernel_for", lambda device, k=kernel: SimpleNamespace(__name__=k)
        )
        built = [(case.shape, case.bounds) for case in cases.build()]
        found = [
            dict(bounds).get("vicinal, per batch", dict(bounds).get("vicinal, plan.loss"))
            for _, bounds in built
        ]
        assert [shape for shape, _ in built][:2] == [(256, 3, 224, 224), (512, 3, 32, 32)]
        assert (*found[:2], found[5]) == (*bounds, 1.5)
