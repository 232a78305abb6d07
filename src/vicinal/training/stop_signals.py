"""Signals that ask to stop: SIGTERM from a scheduler, SIGHUP from a closed terminal."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = [
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
]


class StopSignals:
    """Records SIGTERM and SIGHUP inside a ``with`` block, instead of ending the process.

    A signal that the process ignores, such as SIGHUP under ``nohup``, stays ignored. Outside the
    main thread, where Python cannot handle signals, nothing is recorded.

    Example:
        >>> with StopSignals() as signals:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     signals.received, signals.name
        (True, 'SIGTERM')
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.received, self.name = False, "a signal to another process"
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.received, self.name = True, signal.Signals(number).name
