"""The command line: words to calls, no logic of its own."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vicinal.errors import UserError

app = typer.Typer(
    name="vicinal",
    help="Train neural networks on blends of examples, and find out whether it helps.",
    epilog="Start with: vicinal study digits",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(epilog="Example: vicinal study digits --seeds 5 --out runs/digits")
def study(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe that comes with vicinal, by name, or a path ending in .toml."
        ),
    ] = "digits",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the study.  [default: runs/NAME]", show_default=False),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Repetitions of each arm, in place of the recipe's.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data, in place of the recipe's.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train every arm with every seed, compare them, and write a report.

    Every finished trial is kept: a study that was stopped goes on where it was, and a finished one
    is only shown. More --seeds add to what is there.
    """
    goes_on = "stopped; what is finished is kept: the same command goes on from there"
    with _errors_in_words(debug, stopped=goes_on):
        _study(recipe, out=out, seeds=seeds, epochs=epochs, json=json)


@app.command(epilog="Example: vicinal show --policy cutmix --seed 3 --out cutmix.svg")
def show(
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="mixup, cutmix, resizemix, fmix or dirichlet; may be repeated.  [default: all]",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Strength, above 0; resizemix has none.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Decides partners, shares and regions.")] = 0,
    size: Annotated[int, typer.Option(help="Number of examples, 2 to 16.")] = 6,
    out: Annotated[Path, typer.Option(help="The picture: .svg or .png.")] = Path("mixed.svg"),
    json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as JSON, and nothing else.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Draw a batch of digits, their partners, and what each policy makes of them."""
    with _errors_in_words(debug, stopped="stopped; nothing was written"):
        from vicinal.reports.show import run_show, shown_text

        shown = run_show(policy or (), alpha=alpha, seed=seed, size=size, out=out)
        if json:
            sys.stdout.write(shown_text(shown))
        else:
            typer.echo(f"picture: {shown['file']}")


@app.command(epilog="Example: vicinal bench --quick")
def bench(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for mixing-DEVICE.json, .md and .svg.  [default: no files]"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu or cuda.  [default: cuda where there is a GPU]", show_default=False),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few rounds, small batches: shows that it works.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure the mixing operator beside its peers and beside a plain copy.

    Takes up to three minutes. Leave the machine alone meanwhile: a note says if it was not.
    """
    with _errors_in_words(debug, stopped="stopped; nothing was written"):
        from vicinal.reports.bench_report import run_bench

        run_bench(out=out, device=device, quick=quick, json=json)


def _study(
    recipe_name: str, *, out: Path | None, seeds: int | None, epochs: int | None, json: bool
) -> None:
    from rich.console import Console

    from vicinal.reports.progress import StudyProgress
    from vicinal.reports.report import PAGE, is_current, write_report
    from vicinal.reports.tables import print_table
    from vicinal.studies import open_study, run_study
    from vicinal.studies.summary import summarise, summary_text
    from vicinal.training.recipe import read_recipe

    recipe = read_recipe(recipe_name, seeds=seeds, epochs=epochs)
    folder = out or Path("runs") / recipe.name
    with open_study(recipe, folder) as opened:
        with StudyProgress(Console(stderr=True)) as progress:
            run_study(opened, progress)
        summary = summarise(recipe, opened.results())
        if not is_current(opened, summary):
            write_report(opened, summary)
    if json:
        sys.stdout.write(summary_text(summary))
    else:
        console = Console()
        print_table(summary, console)
        console.print(f"report: {folder / PAGE}", highlight=False, soft_wrap=True)


@contextmanager
def _errors_in_words(debug: bool, *, stopped: str) -> Iterator[None]:
    """Turn what a person can mend into one sentence and exit code 2; Ctrl-C into 130."""
    try:
        yield
    except KeyboardInterrupt:
        _say(stopped)
        raise typer.Exit(130) from None
    except UserError as error:
        if debug:
            raise
        _say(str(error))
        raise typer.Exit(2) from None
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        hint = "free some space" if error.errno == errno.ENOSPC else "see --debug for where"
        _say(f"{where}{error.strerror or error}; {hint}, and run the same command again")
        raise typer.Exit(2) from None
    except Exception as error:
        if debug:
            raise
        _say(f"this is a bug in vicinal ({type(error).__name__}: {error}); --debug shows where")
        raise typer.Exit(1) from None


def _say(sentence: str) -> None:
    typer.echo(f"vicinal: {sentence}", err=True)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
