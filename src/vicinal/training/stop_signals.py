"""Signals that ask to stop: SIGTERM from a scheduler, SIGHUP from a closed terminal."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Record SIGTERM and SIGHUP inside a ``with`` block, instead of ending the process.

    A signal that the process ignores, such as SIGHUP under ``nohup``, stays ignored. Outside the
    main thread, where Python cannot handle signals, nothing is recorded. A block inside another one
    passes its signals on to it when it ends.

    Example:
        >>> with stop_signals() as received:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     received
        ['SIGTERM']
    """
    received: list[str] = []
    before = {
        number: signal.signal(number, lambda n, _frame: received.append(signal.Signals(n).name))
        for number in _handled()
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
            if callable(handler) and signal.Signals(number).name in received:
                handler(number, None)


@contextmanager
def interrupt_on_stop_signals() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` at SIGTERM and SIGHUP inside a ``with`` block, as at Ctrl-C.

    Example:
        >>> try:
        ...     with interrupt_on_stop_signals():
        ...         signal.raise_signal(signal.SIGTERM)
        ... except KeyboardInterrupt:
        ...     print("stopped")
        stopped
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in _handled()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handled() -> list[int]:
    main = threading.current_thread() is threading.main_thread()
    return [n for n in SIGNALS if main and signal.getsignal(n) is not signal.SIG_IGN]
