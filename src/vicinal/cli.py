"""The command line: parses arguments and calls functions."""

import errno
import io
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vicinal import __version__, interrupts
from vicinal.data.catalog import MAX_BYTES, SOURCES, TEST_FRACTION
from vicinal.errors import UserError, out_of_memory, unknown
from vicinal.escaping import visible
from vicinal.extras import extras_named

_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(
    name="vicinal",
    help="Train networks with mixup and related methods, and measure whether that helps.",
    epilog="Start with: vicinal study digits",
    **_SETTINGS,
)


def _print_version(version: bool) -> None:
    if version:
        typer.echo(f"vicinal {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


_LARGEST_SEED = 2**32 - 1
_RECIPES = (
    "cifar10-fast, cifar10-resnet50, digits, manifold-cifar10, paper-cifar10, paper-cifar100, "
    "paper-imagenet, or the path of a .toml file."
)

_Spec = Annotated[
    str,
    typer.Argument(
        help='Data set: cifar10, folder:PATH, "table:FILE?label=COLUMN"; see vicinal data list.'
    ),
]
_Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the data sets.  [default: $VICINAL_DATA, or data]", show_default=False
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
_Skip = Annotated[
    bool, typer.Option("--skip-bad", help="Skip examples that cannot be read, and report them.")
]
_MaxBytes = Annotated[
    int, typer.Option(help="Largest size of a file after decoding, in bytes.", min=1)
]
_Seed = Annotated[int, typer.Option(help="Seed of the train/test split.", min=0, max=_LARGEST_SEED)]
_Fraction = Annotated[
    float, typer.Option(help="Fraction for testing, if the data set has no test split.")
]
_Epochs = Annotated[int | None, typer.Option(help="Number of epochs, instead of the recipe's.")]
_Source = Annotated[
    str | None, typer.Option(help="Data set, such as folder:PATH, instead of the recipe's.")
]
_Variant = Annotated[str | None, typer.Option(help="Name of one of the recipe's variants.")]


@app.command(epilog="Example: vicinal study digits --seeds 5 --out runs/digits")
def study(
    recipe: Annotated[str, typer.Argument(help=_RECIPES)] = "digits",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the study.  [default: runs/NAME]", show_default=False),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Number of seeds for each arm, instead of the recipe's.")
    ] = None,
    epochs: _Epochs = None,
    data: _Source = None,
    variant: _Variant = None,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Train every arm with every seed, compare them, and write a report.

    Finished trials are kept: run the same command again to resume a study, to show a finished one,
    or, with more --seeds, to add to it.
    """
    stopped = "stopped; finished trials are kept: run the same command to resume"
    with _errors_reported(debug, stopped=stopped):
        from vicinal import api
        from vicinal.reports.study_report import PAGE
        from vicinal.reports.study_tables import print_study
        from vicinal.reports.terminal import Terminal
        from vicinal.studies.summary import summary_text

        done = api.study(recipe, seeds=seeds, epochs=epochs, data=data, variant=variant, out=out)
        if json:
            sys.stdout.write(summary_text(done.summary))
        else:
            console = Terminal()
            print_study(done.summary, console)
            console.print(f"report: {visible(str(done.folder / PAGE))}", soft_wrap=True)
        if done.failures:
            raise typer.Exit(TRIALS_FAILED)


@app.command(epilog="Example: vicinal train digits --arm mixup --epochs 10 --out runs/one")
def train(
    recipe: Annotated[str, typer.Argument(help=_RECIPES)],
    arm: Annotated[str, typer.Option(help="Name of one of the recipe's arms.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, metrics and result.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the training in that folder.")
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of initial weights, data order and mixing.", min=0, max=_LARGEST_SEED
        ),
    ] = 0,
    corrupted: Annotated[
        float, typer.Option(help="Fraction of the training labels to replace by random ones.")
    ] = 0.0,
    epochs: _Epochs = None,
    data: _Source = None,
    variant: _Variant = None,
    devices: Annotated[int, typer.Option(help="Number of devices per machine.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Number of machines.", min=1)] = 1,
    strategy: Annotated[
        str, typer.Option(help="Strategy for several devices: ddp, or fsdp (sharded weights).")
    ] = "ddp",
    logger: Annotated[
        list[str] | None,
        typer.Option(
            help="tensorboard, wandb, mlflow or none; repeatable.  [default: tensorboard]",
            show_default=False,
        ),
    ] = None,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Train one arm of a recipe with one seed, and keep the network.

    Writes checkpoint.safetensors, metrics.csv and result.json. An interrupted training resumes
    from its last checkpoint with --resume, bit for bit.
    """
    stopped = "stopped; the last checkpoint is kept: resume with --resume"
    with _errors_reported(debug, stopped=stopped):
        from vicinal.reports.progress import TrainProgress
        from vicinal.reports.terminal import Terminal
        from vicinal.reports.training_report import print_result
        from vicinal.studies import Trial
        from vicinal.training.recipe import read_recipe
        from vicinal.training.single_trial import train_one
        from vicinal.training.trial import Callbacks

        if not 0 <= corrupted <= 1:
            raise UserError(f"--corrupted: expected a fraction from 0 to 1, got {corrupted}")
        resolved = read_recipe(recipe, variant=variant, epochs=epochs, source=data)
        if arm not in resolved.arms:
            raise UserError(unknown("arm", arm, resolved.arms))
        count = resolved.training_of(arm).epochs
        with TrainProgress(Terminal(stderr=True), count) as progress:
            result = train_one(
                resolved,
                Trial(arm, corrupted, seed),
                out,
                resume=resume,
                devices=devices,
                nodes=nodes,
                strategy=strategy,
                loggers=[name for name in logger or ["tensorboard"] if name != "none"],
                callbacks=Callbacks(progress.epoch, progress.log),
            )
        if result is None:  # only the first of several processes has it
            return
        if json:
            _print_json(result.model_dump(mode="json"))
        else:
            print_result(result, str(out / "checkpoint.safetensors"), Terminal())


@app.command(epilog="Example: vicinal score runs/one/checkpoint.safetensors")
def score(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.safetensors file of vicinal.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set, such as folder:PATH.  [default: that of the training]",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="test, train or validation.")] = "test",
    root: _Root = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the train/test split.  [default: that of the training]",
            min=0,
            max=_LARGEST_SEED,
            show_default=False,
        ),
    ] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(
            help="Fraction for testing.  [default: that of the training]",
            show_default=False,
        ),
    ] = None,
    pairs: Annotated[int, typer.Option(help="Number of confused pairs to show.", min=0)] = 5,
    accelerator: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    skip_bad: _Skip = False,
    max_bytes: _MaxBytes = MAX_BYTES,
    allow_import: Annotated[
        bool,
        typer.Option(
            "--allow-import", help="Import the modules that the checkpoint names, which runs code."
        ),
    ] = False,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Evaluate a checkpoint on a data set.

    Prints accuracy, top-5 accuracy, loss, calibration error and the most confused pairs of classes.
    Inputs are prepared as for the tests during training. Without --data, the test split of the
    training is used.
    """
    with _errors_reported(debug, stopped="stopped"):
        from vicinal.reports.terminal import Terminal
        from vicinal.reports.training_report import print_scores, scores_as_plain
        from vicinal.training.score import score_saved

        scores = score_saved(
            checkpoint,
            source=data,
            split=split,
            root=root,
            seed=seed,
            test_fraction=test_fraction,
            skip_bad=skip_bad,
            max_bytes=max_bytes,
            accelerator=accelerator,
            confusions=pairs,
            allow_import=allow_import,
            log=_report,
        )
        if json:
            _print_json(scores_as_plain(scores))
        else:
            print_scores(scores, Terminal())


@app.command(epilog="Example: vicinal show --policy cutmix --seed 3 --out cutmix.svg")
def show(
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="mixup, cutmix, resizemix, fmix or dirichlet; repeatable.  [default: all]",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(help="Concentration of the Beta or Dirichlet distribution, above 0."),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(help="Seed of partners, lam and regions.", min=0, max=_LARGEST_SEED)
    ] = 0,
    size: Annotated[int, typer.Option(help="Number of examples, from 2 to 16.")] = 6,
    out: Annotated[Path, typer.Option(help="File to write: .svg or .png.")] = Path("mixed.svg"),
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Draw digits, their partners, and their blends by each policy."""
    with _errors_reported(debug, stopped="stopped; nothing was written"):
        from vicinal.reports.show import run_show

        shown = run_show(policy or (), alpha=alpha, seed=seed, size=size, out=out)
        if json:
            _print_json(shown)
        else:
            _print(f"figure: {shown['file']}")


data_app = typer.Typer(
    name="data",
    help="List, inspect, fetch and convert data sets.",
    epilog="Start with: vicinal data info digits",
    **_SETTINGS,
)
app.add_typer(data_app)


@data_app.command("list", epilog="Example: vicinal data list")
def data_list(json: _Json = False, debug: _Debug = False) -> None:
    """List the supported data sets and formats, and how to name them."""
    with _errors_reported(debug, stopped="stopped"):
        from vicinal.reports.data_report import print_sources
        from vicinal.reports.terminal import Terminal

        if json:
            _print_json({k: {"spec": s.spec, "holds": s.holds} for k, s in SOURCES.items()})
        else:
            print_sources(Terminal())


@data_app.command("info", epilog="Example: vicinal data info folder:flowers --figure flowers.svg")
def data_info(
    spec: _Spec,
    root: _Root = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw examples of each class, into this .svg file.")
    ] = None,
    seed: _Seed = 0,
    test_fraction: _Fraction = TEST_FRACTION,
    skip_bad: _Skip = False,
    max_bytes: _MaxBytes = MAX_BYTES,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Read a data set, and describe it.

    Prints counts, shapes, classes and values, and reports what was guessed or skipped.
    """
    with _errors_reported(debug, stopped="stopped; nothing was written"):
        from vicinal.data import describe, load
        from vicinal.reports.data_report import print_description, write_examples
        from vicinal.reports.terminal import Terminal

        data = load(
            spec,
            root=root,
            seed=seed,
            test_fraction=test_fraction,
            skip_bad=skip_bad,
            max_bytes=max_bytes,
        )
        described = describe(data)
        if figure is not None:
            write_examples(spec, data, figure)
        if json:
            _print_json(described)
        else:
            print_description(spec, described, Terminal())
            if figure is not None:
                _print(f"figure: {figure}")


@data_app.command("fetch", epilog="Example: vicinal data fetch cifar10 --root data")
def data_fetch(
    name: Annotated[str, typer.Argument(help="Data set, such as cifar10 or speech-commands.")],
    root: _Root = None,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Download the archives of a data set, and verify them.

    Files that exist already are kept, and an interrupted download resumes.
    """
    stopped = "stopped; what was downloaded is kept: run the same command to resume"
    with _errors_reported(debug, stopped=stopped):
        from vicinal.data import data_root
        from vicinal.data.fetch import fetch
        from vicinal.reports.progress import file_progress
        from vicinal.reports.terminal import Terminal

        with file_progress(Terminal(stderr=True)) as progress:
            paths = fetch(name, data_root(root), progress=progress)
        _print_paths(paths, json)


@data_app.command("convert", epilog="Example: vicinal data convert cifar10 cifar10.rec")
def data_convert(
    spec: _Spec,
    out: Annotated[
        Path, typer.Argument(help="NAME.rec (with NAME.idx, for MXNet), NAME.npz, or a new folder.")
    ],
    root: _Root = None,
    encoding: Annotated[str, typer.Option(help="Image encoding: same, png, jpeg or raw.")] = "same",
    quality: Annotated[int, typer.Option(help="JPEG quality, from 1 to 100.")] = 95,
    seed: _Seed = 0,
    test_fraction: _Fraction = TEST_FRACTION,
    skip_bad: _Skip = False,
    max_bytes: _MaxBytes = MAX_BYTES,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Convert a data set to another format.

    Writes RecordIO files as MXNet does, a folder for each class, or one .npz file.
    """
    with _errors_reported(debug, stopped="stopped; names of unfinished files contain .part"):
        from vicinal.data import load
        from vicinal.data.convert import convert
        from vicinal.reports.progress import file_progress
        from vicinal.reports.terminal import Terminal

        data = load(
            spec,
            root=root,
            seed=seed,
            test_fraction=test_fraction,
            skip_bad=skip_bad,
            max_bytes=max_bytes,
            in_memory=0,
        )
        with file_progress(Terminal(stderr=True)) as progress:
            paths = convert(
                data,
                out,
                encoding=encoding,
                quality=quality,
                progress=progress,
                skipped=lambda part, sentence: _report(f"skipped in {part}: {sentence}"),
            )
        _print_paths(paths, json)


def _print_paths(paths: list[Path], json: bool) -> None:
    if json:
        _print_json([str(path) for path in paths])
    else:
        for path in paths:
            _print(str(path))


def _print_json(value: Any) -> None:
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")


TRIALS_FAILED = 3
"""The exit code of a study with a report, some of whose trials failed."""


@contextmanager
def _errors_reported(debug: bool, *, stopped: str) -> Iterator[None]:
    """Report errors that the user can fix with exit code 2, and Ctrl-C with exit code 130."""
    if not debug:  # the main thread reports errors of other threads, such as those of loggers
        threading.excepthook = lambda _: None
    try:
        with extras_named(), interrupts.unwinding():
            yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        _report(stopped)
        raise typer.Exit(interrupts.CODE) from None
    except BrokenPipeError:
        # The reader of our output has closed it; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None
    except Exception as error:
        if debug:
            raise
        text, code = str(error), 2
        if isinstance(error, OSError) and not isinstance(error, UserError):
            where = f"{error.filename}: " if error.filename else ""
            hints = {errno.ENOSPC: "free some space", errno.ENOMEM: "free some memory"}
            hint = hints.get(error.errno or 0, "--debug shows where it happened")
            text = f"{where}{error.strerror or error}; {hint}; then run the same command again"
        elif out_of_memory(error):
            reason = text.strip() or type(error).__name__
            text = f"out of memory: free some memory, then run the same command again ({reason})"
        elif not isinstance(error, UserError):
            text = (
                f"this is a bug in vicinal: {type(error).__name__}: {error}. --debug shows where."
            )
            code = 1
        _report(text)
        raise typer.Exit(code) from None


def _report(sentence: str) -> None:
    first, *others = visible(sentence, keep_lines=True).splitlines() or [""]
    lines = [f"vicinal: {first}", *(f"  {line.strip()}" for line in others)]
    typer.echo("\n".join(lines), err=True)


def _print(sentence: str) -> None:
    typer.echo(visible(sentence))


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="vicinal")  # registered by vicinal.escaping
    try:
        app()
    except Exception:
        if "--debug" not in sys.argv:
            raise
        sys.stderr.write(visible(traceback.format_exc(), keep_lines=True))
        sys.exit(1)
