"""Several studies on one page."""

import csv
import shutil

import pytest
from made_up import made_up_study


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
    assert rows[2].split(" | ")[2:] == rows[3].split(" | ")[2:]  # the same results
    assert "All studies have the same test examples." in text
    assert f"- Arms of made-up ({two[0]}) only: mixup 2." in text
    assert f"- Metrics of made-up ({two[1]}) only: brier." in text
    with (tmp_path / "both/comparison.csv").open() as file:
        read = list(csv.DictReader(file))
    assert len(read) == 4
    assert 0 < float(read[0]["accuracy"]) < 100
    assert "brier" not in read[0]


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


def test_studies_with_nothing_in_common_are_refused(tmp_path, vicinal):
    made_up_study(tmp_path / "one", examples=60)
    made_up_study(tmp_path / "two", examples=60, task="regression", classes=1)
    done = vicinal("report", tmp_path / "one", tmp_path / "two")
    assert done.exit_code == 2
    assert "expected studies with a common metric, got none in made-up (" in done.stderr


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


def test_a_folder_without_a_study_is_refused(two, vicinal, tmp_path):
    done = vicinal("report", tmp_path)
    assert done.exit_code == 2
    assert "expected the folder of a study, got one without recipe.toml" in done.stderr
    shutil.rmtree(two[0] / "trials")
    done = vicinal("report", two[0])
    assert done.exit_code == 2
    assert "no trial was run" in done.stderr
