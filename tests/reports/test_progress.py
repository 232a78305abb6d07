"""What is shown while a study runs."""

import io

from rich.console import Console

from vicinal.reports.progress import StudyProgress
from vicinal.studies import EpochRow, Trial
from vicinal.training.recipe import read_recipe


def test_the_bar_of_an_arm_counts_the_epochs_of_that_arm(small_recipe):
    recipe = read_recipe(str(small_recipe({"arms.mixup.training": {"epochs": 7}})))
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    progress = StudyProgress(console)
    with progress.bars:
        progress.begin(recipe, total=3, done=0)
        for arm in ("mixup", "erm"):
            progress.start(Trial(arm, 0.0, 0))
            progress.epoch(EpochRow(1, 0.1, 1.0, 1.0, 0.5, None, None, None, 1.0), "accuracy")
            progress.bars.refresh()
    shown = console.file.getvalue()
    assert "1/7" in shown
    assert "1/2" in shown
    assert "test accuracy 50.00%" in shown
