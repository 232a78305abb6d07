"""Loggers, which receive the metrics of each epoch."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from vicinal.errors import UserError, root_cause, unknown


class Logger(NamedTuple):
    """A logger, as two functions.

    Args:
        log_metrics: is called with the metrics of each epoch, and the epoch.
        finalize: is called at the end with the status, ``"success"`` or ``"failed"``.
    """

    log_metrics: Callable[[dict[str, float], int], Any]
    finalize: Callable[[str], Any]


def make_loggers(
    names: Sequence[str], folder: Path, *, run: str, settings: Mapping[str, Any]
) -> list[Logger]:
    """Return loggers, whose errors name the logger and say what to try.

    Args:
        names: any of ``"tensorboard"``, ``"wandb"`` and ``"mlflow"``.
        folder: folder of the trial. TensorBoard writes into ``tensorboard`` in it, Weights & Biases
            into it, and MLflow too, unless its environment variables name another place.
        run: the name of the run.
        settings: the settings of the run.

    Raises:
        UserError: if there is no such logger, or its package is not installed.

    Example:
        >>> make_loggers([], Path("."), run="erm", settings={})
        []
    """
    check_loggers(names)
    made = [(name, _call(name, _MAKERS[name], folder, run, dict(settings))) for name in names]
    return [Logger(*(partial(_call, name, function) for function in each)) for name, each in made]


def check_loggers(names: Sequence[str]) -> None:
    """Raise if a logger is not available, before anything is written.

    Raises:
        UserError: if there is no such logger, or its package is not installed.

    Example:
        >>> check_loggers(["tensorbord"])
        Traceback (most recent call last):
        vicinal.errors.UserError: there is no logger 'tensorbord'. Did you mean 'tensorboard'? ...
    """
    for name in names:
        if name not in _MAKERS:
            raise UserError(unknown("logger", name, _MAKERS))
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(
                f"--logger: {name} requires its package ({error}). Run pip install {name}."
            ) from error


def _call(name: str, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        raise UserError(
            f"--logger: {name} failed ({root_cause(error)}). Fix that or choose another logger, "
            "and resume: the last state is kept."
        ) from error


def _tensorboard(folder: Path, run: str, settings: dict[str, Any]) -> Logger:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    board = TensorBoardLogger(folder, name="tensorboard", version="")
    return Logger(board.log_metrics, board.finalize)


def _wandb(folder: Path, run: str, settings: dict[str, Any]) -> Logger:
    import wandb

    begun = wandb.init(project="vicinal", name=run, dir=str(folder), config=settings)
    return Logger(
        lambda metrics, epoch: begun.log(metrics, step=epoch),
        lambda status: begun.finish(exit_code=int(status != "success")),
    )


def _mlflow(folder: Path, run: str, settings: dict[str, Any]) -> Logger:
    import mlflow

    if not mlflow.is_tracking_uri_set():
        mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
    mlflow.set_experiment("vicinal")
    mlflow.start_run(run_name=run)
    mlflow.log_dict(settings, "settings.json")
    return Logger(
        lambda metrics, epoch: mlflow.log_metrics(metrics, step=epoch),
        lambda status: mlflow.end_run("FINISHED" if status == "success" else "FAILED"),
    )


_MAKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
