"""Signals to stop: SIGTERM from schedulers before they kill, SIGHUP when a terminal closes."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = [
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
]


class Stopping:
    """Records SIGTERM and SIGHUP inside a ``with`` block instead of dying of them.

    A signal that the process ignores, such as SIGHUP under ``nohup``, stays ignored. Outside the
    main thread, where Python cannot handle signals, nothing is recorded.

    Example:
        >>> with Stopping() as stopping:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     stopping.asked, stopping.name
        (True, 'SIGTERM')
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.asked, self.name = False, "a signal to another process"
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers from before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.asked, self.name = True, signal.Signals(number).name
