"""The terminal, which shows others' words as they are and obeys none of them."""

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
        """Write to the standard output, or where the settings say."""
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render anything; text between styles cannot hold control characters."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text, keep_lines=True), style, control)
