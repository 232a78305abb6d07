"""The data sources by name, and defaults of ``load``. Imports nothing heavy."""

from typing import NamedTuple

MAX_BYTES = 2_000_000_000
"""Default of ``max_bytes``: the most bytes that one file may take once it is decoded."""

TEST_FRACTION = 0.2
"""Default share of test examples of a data set that has no test split."""


class Source(NamedTuple):
    """A source of data sets.

    Args:
        function: ``module:name`` of the function that loads it, in ``vicinal.data``.
        rest: the syntax of what follows its name.
        holds: what it is, in a few words.
    """

    function: str
    rest: str
    holds: str


SOURCES: dict[str, Source] = {
    "digits": Source("load_data_set:load_digits", "", "1,797 scans of 8x8 pixels, in scikit-learn"),
    "iris": Source("tables.uci:load_iris", "", "150 flowers, 4 measures, in scikit-learn"),
    "cifar10": Source("formats.cifar:load_cifar10", "[:PATH]", "the official Python archive"),
    "cifar100": Source("formats.cifar:load_cifar100", "[:PATH]", "the official Python archive"),
    "mnist": Source("formats.idx:load_mnist", "[:FOLDER]", "the four IDX files"),
    "fashion-mnist": Source("formats.idx:load_fashion_mnist", "[:FOLDER]", "the four IDX files"),
    "emnist": Source(
        "formats.idx:load_emnist", "[:FOLDER]?split=NAME", "letters and digits, IDX files"
    ),
    "folder": Source("formats.image_folder:load_folder", ":PATH", "images, one folder per class"),
    "rec": Source(
        "formats.mxnet_records:load_records", ":TRAIN.rec,TEST.rec", "MXNet's image records"
    ),
    "npz": Source("formats.npz:load_npz", ":FILE", "arrays in one NumPy file"),
    "commands": Source(
        "sound.load_commands:load_commands", ":PATH", "recordings, one folder per word, list files"
    ),
    "table": Source(
        "tables.load_table:load_table", ":FILE?label=COLUMN", "CSV, TSV, ARFF or Parquet"
    ),
    "text": Source(
        "texts.load_texts:load_texts",
        ":FILE?text=COLUMN&label=COLUMN&tokenizer=NAME",
        "texts in a table, for networks of Hugging Face",
    ),
    "abalone": Source("tables.uci:load_abalone", "", "UCI: 4,177 shells, rings as classes"),
    "arcene": Source("tables.uci:load_arcene", "", "UCI: 200 mass spectra of 10,000 values"),
    "arrhythmia": Source("tables.uci:load_arrhythmia", "", "UCI: 452 electrocardiograms"),
    "htru2": Source("tables.uci:load_htru2", "", "UCI: 17,898 candidates for pulsars"),
    "phishing": Source("tables.uci:load_phishing", "", "UCI: 11,055 web pages, 30 features"),
    "hf": Source("formats.libraries:load_hugging_face", ":NAME", "a data set of Hugging Face"),
    "torchvision": Source(
        "formats.libraries:load_torchvision", ":NAME", "a data set of torchvision"
    ),
    "import": Source(
        "formats.libraries:load_imported",
        ":MODULE:NAME",
        "your own map-style data set; or MODULE.PATH:NAME",
    ),
}
"""The data sources by their short names."""
