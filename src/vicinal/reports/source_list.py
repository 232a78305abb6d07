"""The list of data sources, for the terminal; imports nothing heavy."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vicinal.data.catalog import SOURCES


def print_sources(console: Console) -> None:
    """Print the names that data sets have."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    for source in SOURCES.values():
        table.add_row(Text(source.spec), Text(source.holds))
    console.print(table)
