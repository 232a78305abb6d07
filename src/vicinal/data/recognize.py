"""Recognize the data set at a plain path, such as ``flowers/`` or ``cars.csv``."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from vicinal.data.catalog import MAX_BYTES, SOURCES
from vicinal.data.dataset import Note
from vicinal.data.formats.file_listing import KIND_OF, SPLIT_NAMES, entries_in, files_below
from vicinal.data.source_spec import encoded, existing
from vicinal.errors import UserError, unknown
from vicinal.escaping import visible
from vicinal.extras import extras_named
from vicinal.options import split_options

_SOURCE_OF = {"table": "table", "array": "npz", "record": "rec"}

_CIFAR = {
    "cifar10": {"cifar-10-batches-py", "cifar-10-python.tar.gz"},
    "cifar100": {"cifar-100-python", "cifar-100-python.tar.gz"},
}
_MNIST = {"train-images-idx3-ubyte", "train-images.idx3-ubyte"}


class Recognized(NamedTuple):
    """A data set by the source that reads it.

    Args:
        spec: the source, for ``load`` and recipes.
        notes: what was guessed, for the user; empty if ``spec`` was given as a source.
    """

    spec: str
    notes: tuple[Note, ...] = ()


@extras_named()
def recognized(
    text: str,
    *,
    root: Path,
    largest: int | None = None,
    guess: bool = True,
    source: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Recognized:
    r"""Return the source for a plain path; a source is returned as it is.

    A folder with class folders (or with folders ``train`` and ``test`` that have them) becomes
    ``folder:PATH`` if it has images, and ``commands:PATH`` if it has recordings. The files of
    CIFAR, MNIST and EMNIST, ``.rec`` and ``.npz`` files, and tables are recognized by their names.
    Options may follow the path: ``flowers?channels=1``. The names of sources go first: for a
    folder named ``digits``, write ``./digits``.

    Two options are guessed if they are not given, with a note: the ``label`` of a table (see
    ``guessed_label``), and the ``size`` of images that differ in size or are large (see
    ``suggested_size``).

    Args:
        text: a path, or a source.
        root: folder of data sets. Relative paths are looked up there first, then in the working
            directory.
        largest: as for ``suggested_size``.
        guess: whether ``label`` and ``size`` are guessed.
        source: ``"folder"`` or ``"table"`` if the user named it, so that only options are guessed.
        max_bytes: the most bytes that a table may take.

    Raises:
        UserError: if there is no such path, or what is there is not a data set or several ones. The
            message says what was found, and how to name it.

    Example:
        >>> recognized("digits", root=Path())
        Recognized(spec='digits', notes=())
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "cars.csv").write_text("doors,price\n3,9000\n5,12000\n")
        ...     found = recognized("cars.csv", root=Path(folder))
        >>> found.spec
        'table:cars.csv?label=price'
    """
    head, options = split_options(text) if _find(text, root) is None else (text, {})
    name = head.partition(":")[0]
    if source is None and name in SOURCES:
        return Recognized(text)
    path = _find(head, root)
    if path is None:
        if (
            source is None
            and "." in name
            and Path(head).suffix.lower() not in KIND_OF
            and os.sep not in name
        ):
            return Recognized(text)  # MODULE.NAME
        if os.sep in head or "." in head:
            existing(head, root, what="file or folder")  # which raises
        raise UserError(unknown("data source, file or folder", visible(head), SOURCES))
    notes = []
    if source is None:
        source, seen = _folder(path) if path.is_dir() else _file(path)
        notes.append(Note(visible(f"{head} was recognized as {source}: {seen}")))
    where = quote(head) if "?" in head or (source == "rec" and "," in head) else head
    written = [f"{key}={value}" for key, value in options.items()]
    if guess and source == "table" and "label" not in options:
        from vicinal.data.tables.guessed_label import guessed_label

        label, note = guessed_label(path, options, max_bytes)
        written.append(f"label={encoded(label)}")
        notes.append(note)
    if guess and source == "folder" and "size" not in options:
        from vicinal.data.formats.suggested_size import suggested_size

        size, why = suggested_size(path, largest=largest)
        if size is not None:
            written.append(f"size={size}")
            notes.append(Note(f"{why}; ?size=N sets another size"))
    return Recognized(f"{source}:{where}{'?' if written else ''}{'&'.join(written)}", tuple(notes))


def _find(where: str, root: Path) -> Path | None:
    try:
        return existing(where, root, what="data set")
    except UserError:
        return None


def _file(path: Path) -> tuple[str, str]:
    """Return the source that reads a file, and what was seen."""
    for source, names in _CIFAR.items():
        if path.name in names:
            return source, f"{path.name}, the official archive"
    kind = KIND_OF.get(path.suffix.lower())
    if kind in _SOURCE_OF:
        return _SOURCE_OF[kind], f"a {path.suffix.lower()} file"
    got, advice = {
        "image": ("one image", "Pass the folder that has a folder of images for each class"),
        "recording": (
            "one recording",
            "Pass the folder that has a folder of recordings for each word",
        ),
        "text": (
            "a text file",
            f"If it is a table, write table:{path}?label=COLUMN, or, if it has a column of texts, "
            f"text:{path}?text=COLUMN&label=COLUMN&tokenizer=NAME",
        ),
        "archive": ("an archive", "Extract it, and pass the path of its folder"),
    }.get(str(kind), ("a file of another kind", "vicinal data list shows what can be read"))
    raise _unclear(path, got, advice)


def _folder(path: Path) -> tuple[str, str]:
    """Return the source that reads a folder, and what was seen."""
    names = entries_in(path)
    found = [
        source
        for source, known in _CIFAR.items()
        if known & names.keys() or (path.name in known and names)
    ]
    if any(name.removesuffix(".gz") in _MNIST for name in names):
        found.append("fashion-mnist" if "fashion" in path.name.lower() else "mnist")
    if any(name.startswith("emnist-") and "-train-images" in name for name in names):
        found.append("emnist")
    kinds = Counter(
        KIND_OF.get(Path(n).suffix.lower()) for n, is_dir in names.items() if not is_dir
    )
    if kinds["record"]:
        found.append("rec")
    if found == ["mnist"]:
        return "mnist", "if these are the files of Fashion-MNIST, write fashion-mnist:PATH"
    if len(found) == 1:
        return found[0], f"files of {found[0]}"
    if found:
        raise _unclear(
            path, f"files of {' and '.join(found)}", f"Write {found[0]}:PATH or {found[1]}:PATH"
        )
    return _class_folders(path, sorted(n for n, is_dir in names.items() if is_dir), kinds)


def _class_folders(path: Path, folders: list[str], kinds: Counter[str | None]) -> tuple[str, str]:
    """Return the source for class folders of images or of recordings."""
    inside: Counter[str | None] = Counter()
    for name in folders:
        files = files_below(path, name, Counter())
        inside.update(KIND_OF.get(Path(file).suffix.lower()) for file in files)
    splits = {name.lower() for name in folders} & {
        n for names in SPLIT_NAMES.values() for n in names
    }
    several = f"{len(folders)} folder{'s' * (len(folders) != 1)}, {', '.join(folders[:5])}"
    several += ", ..." * (len(folders) > 5)
    if inside["image"] and not inside["recording"]:
        return "folder", f"images in {several}"
    if inside["recording"] and not inside["image"]:
        if splits:
            raise _unclear(
                path,
                f"recordings in {several}",
                "Put a folder for each word into it, and list the test recordings in "
                f"testing_list.txt. If {sorted(splits)[0]} is a word, write commands:{path}",
            )
        return "commands", f"recordings in {several}"
    both = kinds + inside
    counts = [f"{count} {kind or 'other'} files" for kind, count in both.most_common()]
    got = f"{' and '.join(counts[:3]) or 'no files'} in {len(folders)} folders"
    advice = "Put the images or recordings of each class in a folder named after the class"
    if kinds["table"] or kinds["array"]:
        advice = "To use one of these files, write its path"
    elif inside["image"]:
        advice = f"To use only the images, write folder:{path}"
    raise _unclear(path, got, advice)


def _unclear(path: Path, got: str, advice: str) -> UserError:
    return UserError(
        visible(
            f"{path}: expected class folders of images or of recordings, or a table, got {got}. "
        )
        + visible(f"{advice}.")
    )
