"""Ctrl-C: one sentence and exit code 130, at any moment and however often it is pressed."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CODE = 130
"""The exit code of a command that Ctrl-C stopped, as in shells."""

_pressed = _unwound = False
_process = 0


def listen() -> None:
    """From now on, Ctrl-C ends this process at once, without a traceback.

    This is for the time in which there is nothing to clean up: while modules are imported, and
    at exit. A process that ignores Ctrl-C or has its own handler is not changed.
    """
    global _process  # noqa: PLW0603 - signals belong to the process
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _process = os.getpid()
        signal.signal(signal.SIGINT, _stop_at_once)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let the first Ctrl-C raise ``KeyboardInterrupt`` inside, and the second end the process.

    Other errors that the first one causes, such as those of stopped workers, become
    ``KeyboardInterrupt`` too. Does nothing without ``listen``.
    """
    global _unwound  # noqa: PLW0603
    if signal.getsignal(signal.SIGINT) is not _stop_at_once:
        yield
        return
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    except Exception:
        if _pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        _unwound = _pressed  # the code that catches the error reports it
        signal.signal(signal.SIGINT, _stop_at_once)


def end() -> None:
    """End the process if Ctrl-C was pressed, because a second one would look like a crash."""
    if _pressed:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(CODE)


def _stop_at_once(*_: object) -> None:
    if os.getpid() == _process and not _unwound:
        os.write(2, b"vicinal: stopped\n")
    os._exit(CODE)


def _raise(*_: object) -> None:
    global _pressed  # noqa: PLW0603
    _pressed = True
    signal.signal(signal.SIGINT, _stop_at_once)
    sys.unraisablehook = lambda _: None  # errors during an interrupted teardown are noise
    raise KeyboardInterrupt
