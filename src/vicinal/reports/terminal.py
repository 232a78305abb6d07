"""A terminal that shows foreign text without obeying it."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from vicinal.escaping import visible


class Terminal(Console):
    """Rich's console: escape sequences, markup and emoji codes in a text have no effect.

    Args:
        settings: as for ``rich.console.Console``, such as ``stderr=True``.
    """

    def __init__(self, **settings: Any) -> None:
        """Write to the standard output by default."""
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render anything, with control characters of texts escaped."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text, keep_lines=True), style, control)
