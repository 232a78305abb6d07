"""Errors of a command: one sentence and an exit code, or a traceback with ``--debug``."""

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from vicinal import interrupts
from vicinal.errors import UserError, out_of_memory
from vicinal.escaping import visible
from vicinal.extras import extras_named

TRIALS_FAILED = 3
"""The exit code of a study with a report, some of whose trials failed."""


@contextmanager
def errors_reported(debug: bool, *, stopped: str = "stopped") -> Iterator[None]:
    """Report errors that the user can fix with exit code 2, and Ctrl-C with exit code 130.

    Args:
        debug: show the traceback instead.
        stopped: the sentence after Ctrl-C.
    """
    if not debug:  # the main thread reports errors of other threads, such as those of loggers
        threading.excepthook = lambda _: None
    interrupts.clean_up_first()
    try:
        with extras_named():
            yield
    except (typer.Exit, BrokenPipeError):  # Typer handles a reader that closed our output
        raise
    except (Exception, KeyboardInterrupt) as error:
        if interrupts.caused(error):
            report(stopped)
            raise typer.Exit(interrupts.CODE) from None
        if debug:
            typer.echo(visible(traceback.format_exc(), keep_lines=True), err=True)
            raise typer.Exit(1) from None
        report(_sentence(error))
        known = isinstance(error, UserError | OSError) or out_of_memory(error)
        raise typer.Exit(2 if known else 1) from None


def _sentence(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if out_of_memory(error):
        reason = str(error).strip() or type(error).__name__
        return f"out of memory ({reason}). Free some memory, then run the same command again."
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}. --debug shows where it happened."
    return f"this is a bug in vicinal: {type(error).__name__}: {error}. --debug shows where."


def report(sentence: str) -> None:
    """Print a sentence on stderr; further lines are indented."""
    first, *others = visible(sentence, keep_lines=True).splitlines() or [""]
    lines = [f"vicinal: {first}", *(f"  {line.strip()}" for line in others)]
    typer.echo("\n".join(lines), err=True)
