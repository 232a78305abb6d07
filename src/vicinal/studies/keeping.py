"""What of a trial is written down while it is trained, and brought back to go on."""

import dataclasses
from pathlib import Path

from lightning_fabric import Fabric

from vicinal.data import DataSet, Standardise
from vicinal.studies.machine import hardware, versions
from vicinal.studies.results import EpochRow, Result, Trial, write_metrics, write_result
from vicinal.training.augmenting import evaluation_steps
from vicinal.training.checkpoints import (
    STATE,
    WEIGHTS,
    go_on_from,
    read_tree,
    state_of,
    write_tree,
    write_weights,
)
from vicinal.training.loop import Learner, Reached
from vicinal.training.settings import Recipe, Training


@dataclasses.dataclass
class Kept:
    """A trial that is being trained, and its folder."""

    recipe: Recipe
    trial: Trial
    settings: Training
    data: DataSet
    standardise: Standardise
    folder: Path
    learned: Learner
    fabric: Fabric

    def begin(self) -> tuple[Reached, list[EpochRow], float]:
        """Return how far the trial had come, its rows, and the seconds that it took."""
        path = self.folder / STATE
        if not path.exists():
            return Reached(), [], 0.0
        state = read_tree(path, device="cpu")
        reached = go_on_from(state["learner"], self.learned, self.fabric, str(path))
        return reached, [EpochRow(*row) for row in state["rows"]], state["seconds"]

    def keep(self, reached: Reached, rows: list[EpochRow], seconds: float) -> None:
        """Write where training is, and the network for use."""
        learner = state_of(self.learned, reached, self.fabric)
        if self.fabric.is_global_zero:
            state = {"learner": learner, "rows": [list(row) for row in rows], "seconds": seconds}
            write_tree(self.folder / STATE, state)
            write_metrics(self.folder, rows)
            if rows:
                self._write_weights(rows[-1])
        self.fabric.barrier()

    def _write_weights(self, row: EpochRow) -> None:
        settings = self.settings
        about = {
            "network": self.recipe.model.name,
            "shape": list(self._shape()),
            "classes": list(self.data.classes),
            "crops": [step.size for step in evaluation_steps(self.recipe.data.augment)],  # type: ignore[attr-defined]
            "precision": settings.precision,
            "channels_last": settings.channels_last,
            "flip_averaged": settings.flip_averaged,
            "study": self.recipe.name,
            "data": self.recipe.data.source,
            "division": {
                "seed": self.recipe.seed,
                "test_fraction": self.recipe.data.test_fraction,
            },
            "arm": self.trial.arm,
            "corrupted": self.trial.corrupted,
            "seed": self.trial.seed,
            "epoch": row.epoch,
            "test_accuracy": row.test_accuracy,
            "versions": versions(),
        }
        inputs = {"mean": self.standardise.mean, "deviation": self.standardise.deviation}
        write_weights(self.folder / WEIGHTS, self.learned.tested, about, inputs)

    def _shape(self) -> tuple[int, ...]:
        steps = evaluation_steps(self.recipe.data.augment)
        shape = tuple(self.data.test.inputs.shape[1:])
        return (*shape[:-2], steps[-1].size, steps[-1].size) if steps else shape  # type: ignore[attr-defined]

    def finish(self, rows: list[EpochRow], seconds: float) -> Result:
        """Write the result, which says that the trial is finished."""
        last = rows[-1]
        result = Result(
            arm=self.trial.arm,
            corrupted=self.trial.corrupted,
            seed=self.trial.seed,
            epochs=len(rows),
            test_examples=len(self.data.test),
            test_accuracy=last.test_accuracy,
            test_loss=last.test_loss,
            memorised=last.memorised,
            seconds=round(seconds, 2),
            versions=versions(),
            hardware=hardware(),
        )
        if self.fabric.is_global_zero:
            write_result(self.folder, result, rows)
            (self.folder / STATE).unlink(missing_ok=True)
        self.fabric.barrier()
        return result
