"""Data: sets in the forms that they come in, loaders, augmentation, labels corrupted on purpose."""

from vicinal.data.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    CentreCrop,
    ColourJitter,
    Flip,
    PaddedCrop,
    RandomResizedCrop,
)
from vicinal.data.corruption import CorruptedLabels, corrupt_labels
from vicinal.data.dataset import MAX_BYTES, DataSet, Note, Part, Read, Stored
from vicinal.data.description import describe, majority
from vicinal.data.loaders import Loader, epoch_order
from vicinal.data.sources import SOURCES, data_root, load, parse_known
from vicinal.data.standardise import Standardise, standardise_by

__all__ = [
    "AUGMENTATIONS",
    "MAX_BYTES",
    "SOURCES",
    "Augmentation",
    "CentreCrop",
    "ColourJitter",
    "CorruptedLabels",
    "DataSet",
    "Flip",
    "Loader",
    "Note",
    "PaddedCrop",
    "Part",
    "RandomResizedCrop",
    "Read",
    "Standardise",
    "Stored",
    "corrupt_labels",
    "data_root",
    "describe",
    "epoch_order",
    "load",
    "majority",
    "parse_known",
    "standardise_by",
]
