"""A study of GANs: its folder, and its unfinished trials."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import pydantic
import tomlkit
from torch import Tensor

from vicinal.data.threads import available_cores, cpu_threads
from vicinal.errors import UserError
from vicinal.files import write_whole
from vicinal.generative.measures import coverage, divergence, energy_distance
from vicinal.generative.toy import Arm, Mixture, draw_real, mode_centers, train
from vicinal.mixing import generator_at
from vicinal.training.environment import versions
from vicinal.training.gan_recipe import Gan, GanRecipe
from vicinal.training.recipe import is_gan_recipe, read_settings
from vicinal.training.run_folder import check_empty, differences, locked

SAMPLES = 1000
"""How many samples are measured; every second one is kept for the figures."""

_NOT_OF_A_TRIAL = ("data", "arms", "processes")
"""Fields of ``Gan`` that do not affect a trial."""


class Measure(NamedTuple):
    """A measure of samples.

    Args:
        title: with its unit.
        higher: whether higher values are better.
        logarithmic: whether its logarithms are averaged and compared, since it is positive, and a
            single GAN that leaves the data would decide the mean.
    """

    title: str
    higher: bool
    logarithmic: bool = False


MEASURES = {
    "modes": Measure("modes found", True),
    "good": Measure("good samples, %", True),
    "energy": Measure("energy distance", False, logarithmic=True),
}


class GanTrial(NamedTuple):
    """A mixture, an arm and a seed."""

    data: Mixture
    arm: Arm
    seed: int


class Point(pydantic.BaseModel, frozen=True):
    """The measures after an iteration."""

    iteration: int
    modes: int
    good: float
    energy: float


class GanResult(pydantic.BaseModel, frozen=True):
    """The result of a trial.

    Args:
        data, arm, seed: the trial.
        settings: settings of the recipe, those that affect it.
        versions: versions of Python and the packages.
        points: the measures; none after samples that are not finite.
        samples: some samples of the generator, by iteration.
        diverged: what the last samples show, as ``divergence`` returns it.
        seconds: the trial took.
    """

    data: Mixture
    arm: Arm
    seed: int
    settings: dict[str, Any]
    versions: dict[str, str]
    points: list[Point]
    samples: dict[int, list[tuple[float, float]]]
    diverged: str
    seconds: float

    def last(self, name: str) -> float:
        """Return a measure after the last iteration; of samples that are not finite, the worst."""
        if self.points and self.points[-1].iteration == self.settings["iterations"]:
            return float(getattr(self.points[-1], name))
        return 0.0 if MEASURES[name].higher else math.inf


class GanStudy(NamedTuple):
    """A recipe with its folder."""

    recipe: GanRecipe
    folder: Path

    @property
    def trials(self) -> list[GanTrial]:
        """All trials, seed by seed, so that each arm has results early."""
        gan = self.recipe.gan
        seeds = range(self.recipe.seeds)
        return [GanTrial(d, arm, seed) for d in gan.data for seed in seeds for arm in gan.arms]

    def path(self, trial: GanTrial) -> Path:
        """Return the file of a result."""
        return self.folder / f"trials/{trial.data}-{trial.arm}-seed{trial.seed}/result.json"

    def results(self) -> dict[GanTrial, GanResult]:
        """Read the results of finished trials.

        Raises:
            UserError: if one is invalid, or belongs to other settings.
        """
        found = {}
        for trial in self.trials:
            path = self.path(trial)
            if not path.exists():
                continue
            try:
                result = GanResult.model_validate_json(path.read_bytes())
            except (OSError, pydantic.ValidationError) as error:
                raise UserError(
                    f"{path}: expected the result of a trial, got a damaged or other file. Delete "
                    "the file, and run the command again."
                ) from error
            now = {"gan": settings_of_trials(self.recipe.gan)}
            if changed := differences({"gan": result.settings}, now):
                raise UserError(
                    f"{self.folder} holds trials with different settings: {'; '.join(changed)}. "
                    "Choose another folder with --out, or delete this one."
                )
            found[trial] = result
        return found

    def check(self) -> None:
        """Raise a ``UserError`` unless all trials were and will be run with the same packages."""
        results = self.results()
        if len(results) < len(self.trials):
            others, known = "are installed", versions()
        else:  # they can be shown, whatever is installed
            others, known = "other trials", next(iter(results.values())).versions
        for trial, result in results.items():
            if changed := differences({"versions": result.versions}, {"versions": known}):
                raise UserError(
                    f"{self.path(trial).parent} was run with other packages than {others}: "
                    f"{'; '.join(changed)}. Delete the folders of such trials to run them again, "
                    "or choose another folder for the study with --out."
                )


def settings_of_trials(gan: Gan) -> dict[str, Any]:
    """Return the settings that affect a trial."""
    return gan.model_dump(exclude=set(_NOT_OF_A_TRIAL))


@contextmanager
def killed_processes_named() -> Iterator[None]:
    """Raise a ``UserError`` if a process that trains is killed."""
    try:
        yield
    except BrokenExecutor as error:
        raise UserError(
            "a process that trained was killed, perhaps because memory ran out. Finished trials "
            "are kept: run the same command to resume."
        ) from error


@contextmanager
def open_gan_study(recipe: GanRecipe, folder: Path) -> Iterator[GanStudy]:
    """Lock the folder of a study inside the ``with`` block; create it if it does not exist.

    Raises:
        UserError: if it is in use, or holds something else.
    """
    with locked(folder):
        path = folder / "recipe.toml"
        if path.exists():
            if not is_gan_recipe(read_settings(str(path))):
                raise UserError(f"{folder} holds another study. Choose another folder with --out.")
        else:
            check_empty(folder)
        study = GanStudy(recipe, folder)
        study.check()  # an error leaves the recipe as it was
        settings = recipe.model_dump(mode="json", exclude_none=True)
        if not path.exists() or read_settings(str(path)) != settings:  # else its comments stay
            write_whole(path, tomlkit.dumps(settings))
        yield study


def run_gan_study(study: GanStudy, log: Callable[[str], None]) -> None:
    """Run the unfinished trials, one in each process; a result is written as its trial ends.

    Args:
        study: the study.
        log: is called with a sentence after each trial.
    """
    unfinished = [trial for trial in study.trials if not study.path(trial).exists()]
    total = len(study.trials)
    if 0 < len(unfinished) < total:
        log(f"resuming: {total - len(unfinished)} of {total} trials are finished")
    processes = study.recipe.gan.processes or available_cores()
    processes = max(min(processes, len(unfinished)), 1)
    settings = settings_of_trials(study.recipe.gan)
    with killed_processes_named():
        results = joblib.Parallel(n_jobs=processes, return_as="generator_unordered")(
            joblib.delayed(run_gan_trial)(trial, settings) for trial in unfinished
        )
        for done, result in enumerate(results, total - len(unfinished) + 1):
            trial = GanTrial(result.data, result.arm, result.seed)
            write_whole(study.path(trial), result.model_dump_json())
            each = (f"{MEASURES[name].title} {result.last(name):.3g}" for name in MEASURES)
            more = f" (diverged: {result.diverged})" if result.diverged else ""
            log(
                f"[{done}/{total}] {trial.data}, {trial.arm}, seed {trial.seed}: "
                f"{', '.join(each)} in {result.seconds:.0f} s{more}"
            )


@cpu_threads(1)
def cost_of_gans(recipe: GanRecipe) -> float:
    """Return about how many seconds a study takes on this machine, from a few iterations."""
    gan, seconds = recipe.gan, 0.0
    settings = settings_of_trials(gan)
    for arm in gan.arms:
        for iterations in (2, 20):  # the first ones warm up
            began = time.perf_counter()
            list(_drawn(GanTrial(gan.data[0], arm, 0), settings | {"iterations": iterations}, ()))
        seconds += (time.perf_counter() - began) / iterations * gan.iterations
    trials = recipe.seeds * len(gan.data) * len(gan.arms)
    processes = min(gan.processes or available_cores(), trials)
    return seconds * recipe.seeds * len(gan.data) / processes


def shown_iterations(iterations: int) -> list[int]:
    """Return the iterations of the figures: for 20,000 of them, those of the paper.

    Example:
        >>> shown_iterations(20_000), shown_iterations(2)
        ([10, 100, 1000, 10000, 20000], [1, 2])
    """
    return sorted({max(iterations // part, 1) for part in (2000, 200, 20, 2, 1)})


@cpu_threads(1)
def run_gan_trial(trial: GanTrial, settings: dict[str, Any]) -> GanResult:
    """Train one GAN, on one core, so that its results do not depend on the number of cores."""
    began = time.perf_counter()
    iterations, std = settings["iterations"], settings["std"]
    centers, shown = mode_centers(trial.data), shown_iterations(iterations)
    real = real_samples(trial.data, std, trial.seed)
    curve = {math.ceil(iterations * k / 20) for k in range(1, 21)}
    points, kept, diverged = [], {}, ""
    for iteration, samples in _drawn(trial, settings, curve | set(shown)):
        diverged = divergence(samples, std)
        if diverged == "not finite":
            diverged += f" at iteration {iteration:,}"
            break
        found = coverage(samples, centers, std)
        energy = energy_distance(samples, real)
        points.append(
            Point(iteration=iteration, modes=found.modes, good=100 * found.good, energy=energy)
        )
        if iteration in shown:
            kept[iteration] = [(round(x, 4), round(y, 4)) for x, y in samples[::2].tolist()]
    return GanResult(
        **trial._asdict(),
        settings=settings,
        versions=versions(),
        points=points,
        samples=kept,
        diverged=diverged,
        seconds=time.perf_counter() - began,
    )


def _drawn(
    trial: GanTrial, settings: Mapping[str, Any], yield_at: Collection[int]
) -> Iterator[tuple[int, Tensor]]:
    fields = {name: value for name, value in settings.items() if name != "generator_loss"}
    loss = settings["generator_loss"]
    return train(*trial, **fields, loss=loss, samples=SAMPLES, yield_at=yield_at)


def real_samples(data: Mixture, std: float, seed: int) -> Tensor:
    """Return real samples ``(SAMPLES, 2)`` that no GAN of this seed was trained on."""
    fresh = generator_at(seed, 0, stream=9)
    return draw_real(mode_centers(data), std, SAMPLES, fresh)
