"""Ctrl-C: one sentence and exit code 130 at any moment, however often it is pressed."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CODE = 130
"""The exit code of a command that Ctrl-C stopped, as shells have it."""

_pressed = _unwound = False
_process = 0


def listen() -> None:
    """From now on, Ctrl-C ends this process at once, without a traceback.

    That is for the time in which nothing needs to be cleaned up, while modules are imported and
    at exit. A process that ignores Ctrl-C, or handles it in its own way, stays as it is.
    """
    global _process  # noqa: PLW0603 - signals belong to the process
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _process = os.getpid()
        signal.signal(signal.SIGINT, _stop_at_once)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let the first Ctrl-C raise ``KeyboardInterrupt`` inside, and the second end the process.

    Other errors that the first one causes, such as workers that died of it, become
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
        _unwound = _pressed  # whoever catches the error says so
        signal.signal(signal.SIGINT, _stop_at_once)


def end() -> None:
    """End the process if Ctrl-C was pressed; Python itself would take a second one as a crash."""
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
    sys.unraisablehook = lambda _: None  # what is torn down halfway is no news
    raise KeyboardInterrupt
