"""Data: sources read into arrays, and labels corrupted on purpose."""

from vicinal.data.corruption import corrupt_labels
from vicinal.data.sources import SOURCES, DataSet, Part, load

__all__ = ["SOURCES", "DataSet", "Part", "corrupt_labels", "load"]
