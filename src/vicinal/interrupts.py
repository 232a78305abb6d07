"""Ctrl-C: one sentence and exit code 130, at any moment and however often it is pressed."""

import os
import signal
import sys

CODE = 130
"""The exit code of a command that Ctrl-C stopped, as in shells."""


def exit_on_interrupt() -> None:
    """From now on, Ctrl-C ends the process at once, without a traceback.

    A process that ignores Ctrl-C or has its own handler is not changed.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def clean_up_first() -> None:
    """From now on, the first Ctrl-C raises ``KeyboardInterrupt``, and the second ends the process.

    This does nothing unless ``exit_on_interrupt`` was called before and set its handler.
    """
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, _raise)


def caused(error: BaseException | None) -> bool:
    """Return whether ``KeyboardInterrupt`` led to an error, such as one of stopped workers."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _stop(*_: object) -> None:
    os.write(2, b"vicinal: stopped\n")
    os._exit(CODE)


def _raise(*_: object) -> None:
    signal.signal(signal.SIGINT, _stop)
    sys.unraisablehook = lambda _: None  # errors during an interrupted teardown are noise
    raise KeyboardInterrupt
