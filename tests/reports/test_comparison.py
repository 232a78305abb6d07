"""Several studies on one page."""

import csv
import shutil

import numpy as np
import pytest
from filelock import FileLock
from made_up import made_up_study

from vicinal.studies.statistics import difference_between_studies

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def two(tmp_path):
    """Return the folders of two studies that share two arms and their data."""
    made_up_study(tmp_path / "one", examples=60, arms=3)
    made_up_study(tmp_path / "two", examples=60, arms=2, metrics=("accuracy", "brier"))
    return tmp_path / "one", tmp_path / "two"


def test_shared_arms_and_metrics_are_side_by_side(two, vicinal, tmp_path):
    done = vicinal("report", *two, "--out", tmp_path / "both")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("comparison.html\n")
    text = (tmp_path / "both/comparison.md").read_text().replace("\\_", "_")
    rows = [line for line in text.splitlines() if line.startswith(("| ERM", "| mixup"))]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| ERM", f"made-up ({two[0]})"],
        ["| ERM", f"made-up ({two[1]})"],
        ["| mixup 1", f"made-up ({two[0]})"],
        ["| mixup 1", f"made-up ({two[1]})"],
    ]
    assert [row.split(" | ")[3] for row in rows[::2]] == ["—", "—"]
    cells = [row.split(" | ")[2:] for row in rows]
    for own, other in (cells[:2], cells[2:]):  # the same results
        assert own[:1] + own[2:] == other[:1] + other[2:]
    assert rows[1].split(" | ")[3].startswith(r"0.0 \[−")
    assert "All studies have the same test examples." in text
    assert f"- Arms of made-up ({two[0]}) only: mixup 2." in text
    assert f"- Metrics of made-up ({two[1]}) only: brier." in text
    with (tmp_path / "both/comparison.csv").open() as file:
        read = list(csv.DictReader(file))
    assert len(read) == 4
    assert 0 < float(read[0]["accuracy"]) < 100
    assert "brier" not in read[0]


def test_the_difference_between_two_studies_pairs_their_test_examples(tmp_path, vicinal):
    gains = {"one": 0.5, "two": 1.5}
    studies = {
        name: made_up_study(
            tmp_path / name, examples=400, arms=2, gain=gain, name=name, seeds=seeds
        )
        for seeds, (name, gain) in zip((3, 5), gains.items(), strict=True)
    }
    done = vicinal("report", *(tmp_path / name for name in gains), "--out", tmp_path / "both")
    assert done.exit_code == 0, done.output
    with (tmp_path / "both/comparison.csv").open() as file:
        read = {(row["study"], row["arm"]): row for row in csv.DictReader(file)}
    assert read["one", "arm1"]["from_first_value"] == ""
    right = {}
    for name, study in studies.items():
        results = study.results()
        trials = [trial for trial in sorted(results) if trial.arm == "arm1"]
        outputs = [study.outputs(trial, results) for trial in trials]
        right[name] = np.stack([one.last.argmax(1) == one.targets for one in outputs])
    apart = right["two"].mean(0) - right["one"].mean(0)
    expected = difference_between_studies(right["two"] * 1.0, right["one"] * 1.0, least=3 / 400)
    found = read["two", "arm1"]
    assert float(found["from_first_value"]) == pytest.approx(100 * apart.mean(), abs=1e-3)
    shown = float(found["accuracy"]) - float(read["one", "arm1"]["accuracy"])
    assert float(found["from_first_value"]) == pytest.approx(shown, abs=1e-3)
    assert float(found["from_first_low"]) == pytest.approx(100 * expected.low, abs=1e-3)
    text = (tmp_path / "both/comparison.md").read_text()
    assert "“Difference from one” is that of the same arm in two studies" in text
    assert "only intervals that do not overlap" not in text
    for path in (tmp_path / "two/trials").glob("*/result.json"):
        path.write_text(path.read_text().replace("0" * 64, "1" * 64))
    vicinal("report", *(tmp_path / name for name in gains), "--out", tmp_path / "other")
    text = (tmp_path / "other/comparison.md").read_text()
    assert "Difference from" not in text
    assert "only intervals that do not overlap at all suggest one" in text


def test_each_study_is_shown_with_its_own_title_of_an_arm(two, vicinal, tmp_path):
    path = two[1] / "recipe.toml"
    path.write_text(path.read_text().replace('title = "mixup 1"', 'title = "mixup, 9 epochs"'))
    done = vicinal("report", *two, "--out", tmp_path / "both")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "both/comparison.md").read_text()
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| mixup")]
    assert rows == ["| mixup 1", "| mixup, 9 epochs"]


def test_different_data_and_settings_are_said_so(two, vicinal, tmp_path):
    for path in (two[1] / "trials").glob("*/result.json"):
        path.write_text(path.read_text().replace("0" * 64, "1" * 64))
    done = vicinal("report", *two, "--out", tmp_path / "both")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "both/comparison.html").read_text()
    assert "Warning: different test examples" in page
    assert "Settings that differ" in page
    assert ">metrics<" in page
    text = (tmp_path / "both/comparison.md").read_text()
    assert r'| metrics | \[\] | \["accuracy", "brier"\] |' in text


def test_studies_with_nothing_in_common_are_refused(tmp_path, vicinal):
    made_up_study(tmp_path / "one", examples=60)
    made_up_study(tmp_path / "two", examples=60, task="regression", classes=1)
    done = vicinal("report", tmp_path / "one", tmp_path / "two")
    assert done.exit_code == 2
    assert "expected studies with a common metric, got none in made-up (" in done.stderr
    assert "Their tasks differ (classification, regression)" in done.stderr


def test_one_study_is_redrawn_in_place_or_elsewhere(two, vicinal, tmp_path):
    folder = two[0]
    assert vicinal("report", folder).exit_code == 0
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    done = vicinal("report", folder, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert (tmp_path / "out/report.html").read_bytes() == page
    assert not (folder / "report.html").exists()
    assert not (tmp_path / "out/trials").exists()


def test_a_study_that_runs_or_cannot_be_written_is_shown_elsewhere(two, vicinal, tmp_path):
    def files():
        return {path: path.stat().st_mtime_ns for one in two for path in one.rglob("*")}

    with FileLock(two[0] / ".lock", timeout=0):
        before = files()
        refused = vicinal("report", two[0])
        assert "is in use by another vicinal process" in refused.stderr
        for folders in ([two[0]], two):
            done = vicinal("report", *folders, "--out", tmp_path / "out")
            assert done.exit_code == 0, done.output
        assert files() == before


def test_an_arm_has_one_title_although_one_study_alone_names_its_condition(tmp_path, vicinal):
    made_up_study(tmp_path / "one", examples=60, arms=2)
    made_up_study(tmp_path / "two", examples=60, arms=2, corrupted_labels=(0.0, 0.4))
    done = vicinal("report", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "both/comparison.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith(("| ERM", "| mixup"))]
    titles = ["| ERM, true labels"] * 2 + ["| mixup 1, true labels"] * 2
    assert [row.split(" | ")[0] for row in rows] == titles
    assert "Arms of made-up" in text
    assert "only: ERM, 40% corrupted, mixup 1, 40% corrupted." in text


def test_a_folder_without_a_study_is_refused(two, vicinal, tmp_path):
    done = vicinal("report", tmp_path)
    assert done.exit_code == 2
    assert "expected the folder of a study, got one without recipe.toml" in done.stderr
    shutil.rmtree(two[0] / "trials")
    done = vicinal("report", two[0])
    assert done.exit_code == 2
    assert "no trial is finished" in done.stderr


def test_the_report_of_another_study_is_not_replaced(two, vicinal):
    before = {path: path.read_bytes() for path in two[1].rglob("*") if path.is_file()}
    done = vicinal("report", two[0], "--out", two[1])
    assert done.exit_code == 2
    assert "is the folder of another study, whose report would be replaced" in done.stderr
    assert {path: path.read_bytes() for path in two[1].rglob("*") if path.is_file()} == before


def test_finished_seeds_that_are_left_out_are_on_the_page(tmp_path, vicinal):
    made_up_study(tmp_path / "one", examples=60, seeds=4)
    path = tmp_path / "one/recipe.toml"
    assert vicinal("report", path.parent).exit_code == 0
    assert "left out" not in (path.parent / "table.md").read_text()
    path.write_text(path.read_text().replace("seeds = 4", "seeds = 3"))
    assert vicinal("report", path.parent).exit_code == 0
    text = (path.parent / "table.md").read_text()
    assert "Warning: 3 finished trials are left out, since the recipe has fewer seeds." in text
    page = (path.parent / "report.html").read_text()
    assert "3 more that finished, of other seeds, are left out." in page
    assert "all that finished are counted" not in page
    made_up_study(tmp_path / "two", examples=60)
    out = tmp_path / "both"
    assert vicinal("report", path.parent, tmp_path / "two", "--out", out).exit_code == 0
    text = (out / "comparison.md").read_text()
    assert ": Warning: 3 finished trials are left out, since the recipe has fewer seeds." in text
