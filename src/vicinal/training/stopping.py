"""Being asked to stop: SIGTERM, which schedulers of clusters send before they kill."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Stopping:
    """Notes within a ``with`` block that SIGTERM came, in place of dying of it.

    Outside the main thread, where Python lets nobody listen to signals, it notes nothing.

    Example:
        >>> with Stopping() as stopping:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     stopping.asked
        True
    """

    def __init__(self) -> None:
        """Begin as not asked."""
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """Let whoever listened before listen again."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
