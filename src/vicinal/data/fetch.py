"""Download the archives of data sets from their official servers."""

import functools
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from vicinal.errors import UserError, root_cause, unknown
from vicinal.files import put_in_place

Progress = Callable[[str, int, int | None], None]
"""Called with the name of a file, its bytes so far, and its size in bytes or None if unknown."""

_CHUNK = 1 << 18
_SECONDS = 30


class Archive(NamedTuple):
    """A file to download.

    Args:
        url: its address; it is stored under the last part of it.
        checksum: ``"md5:..."`` or ``"sha256:..."`` of the file.
        folder: the folder below the root to store it in.
        unpack: the folder below the root to unpack it into; None to keep it packed.
    """

    url: str
    checksum: str
    folder: str = ""
    unpack: str | None = None

    @property
    def file(self) -> Path:
        """The path below the root."""
        return Path(self.folder, self.url.rpartition("/")[2])


def _idx_files(base: str, folder: str, *checksums: str) -> tuple[Archive, ...]:
    kinds = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(
        Archive(f"{base}/{kind}-ubyte.gz", f"md5:{checksum}", folder)
        for kind, checksum in zip(kinds, checksums, strict=True)
    )


_TORONTO = "https://www.cs.toronto.edu/~kriz"
_UCI = "https://archive.ics.uci.edu/static/public"

ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "cifar10": (
        Archive(f"{_TORONTO}/cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"),
    ),
    "cifar100": (
        Archive(f"{_TORONTO}/cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"),
    ),
    "mnist": _idx_files(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "mnist",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion-mnist": _idx_files(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "fashion-mnist",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "speech-commands": (
        Archive(
            "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
            "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            unpack="speech_commands_v0.02",
        ),
    ),
    "abalone": (
        Archive(
            f"{_UCI}/1/abalone.zip",
            "sha256:755a6a67c5b266961a3f149ea13be2cfb6e6c727e48cee3c83bc0b4526210ee4",
            "uci",
            unpack="uci",
        ),
    ),
    "htru2": (
        Archive(
            f"{_UCI}/372/htru2.zip",
            "sha256:ba442c076dd22a8952700f26e38499fc1806037dcf7bea0e125e6bfba393f379",
            "uci",
            unpack="uci",
        ),
    ),
}
"""The archives of each data set that ``fetch`` knows."""


def fetch(
    name: str,
    root: Path,
    *,
    archives: Mapping[str, tuple[Archive, ...]] = ARCHIVES,
    progress: Progress = lambda name, done, total: None,
) -> list[Path]:
    """Download the archives of a data set that are not in place yet.

    A file with the right checksum is kept, any other file is downloaded again. An interrupted
    download leaves ``NAME.part``, and the next call resumes it if the server supports that. An
    archive that has been unpacked leaves an empty file ``NAME.unpacked``; then the archive itself
    may be deleted.

    Args:
        name: a key of ``archives``.
        root: the folder to download into; it is created if it does not exist.
        archives: the archives of each data set.
        progress: called for each chunk that arrives.

    Returns:
        For each archive its file, or the folder that it was unpacked into.

    Raises:
        UserError: if the name is unknown, the server cannot be reached or returns an error, the
            connection breaks before any byte arrives, the checksum is wrong, or the archive cannot
            be unpacked safely.
        OSError: if the disk is full or not writable.

    Example:
        >>> import tempfile
        >>> page = Path(tempfile.mkdtemp(), "page.txt")
        >>> page.write_text("hello")
        5
        >>> local = Archive("http://localhost/page.txt", "md5:5d41402abc4b2a76b9719d911017c592")
        >>> [path.name for path in fetch("page", page.parent, archives={"page": (local,)})]
        ['page.txt']
    """
    if name not in archives:
        raise UserError(unknown("data set to fetch", name, archives))
    return [_fetch_one(archive, root.resolve(), progress) for archive in archives[name]]


def _fetch_one(archive: Archive, root: Path, progress: Progress) -> Path:
    path = root / archive.file
    unpacked = path.with_name(f"{path.name}.unpacked")
    if archive.unpack and unpacked.exists() and (root / archive.unpack).is_dir():
        return root / archive.unpack
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    writable = os.access(path.parent, os.W_OK)  # else it may be there already
    try:
        with FileLock(lock, timeout=0) if writable else nullcontext():
            try:
                _retrieve(archive, path, progress)
                if archive.unpack is None:
                    return path
                _unpack(path, root / archive.unpack)
                unpacked.touch()
                return root / archive.unpack
            finally:
                with suppress(OSError):
                    lock.unlink()
    except Timeout as error:
        raise UserError(
            f"{path} is being downloaded by another process. Wait for it, then run the same "
            "command again."
        ) from error


def _retrieve(archive: Archive, path: Path, progress: Progress) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")  # the caller shows the progress
    download = functools.partial(_download, path=path, progress=progress)
    try:
        pooch.retrieve(archive.url, archive.checksum, path.name, path.parent, downloader=download)
    except UserError:
        raise
    except ValueError as error:  # the checksum is wrong
        raise UserError(f"{archive.url}: {error} Try again, or download it by hand.") from error


def _download(url: str, output: str, _: object, *, path: Path, progress: Progress) -> None:
    """Download into ``NAME.part``, resuming where it ends; then move it to ``output``.

    Pooch would start over after every broken connection.
    """
    import requests
    import urllib3

    part = path.with_name(f"{path.name}.part")
    while True:
        start = have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        try:
            with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as response:
                if response.status_code == 416:  # nothing is missing, or the checksum is wrong
                    break
                response.raise_for_status()
                if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    have = 0
                length = response.headers.get("Content-Length", "")
                total = have + int(length) if length.isdecimal() else None
                with part.open("ab" if have else "wb") as file:
                    progress(path.name, have, total)
                    # Raw, since some servers send .gz files with "Content-Encoding: gzip".
                    for chunk in response.raw.stream(_CHUNK, decode_content=False):
                        file.write(chunk)
                        have += len(chunk)
                        progress(path.name, have, total)
            break
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if have <= start:  # otherwise, resume at once
                raise UserError(
                    f"{url} cannot be downloaded: {root_cause(error)}. Check the network "
                    "connection, then run the same command again to resume at byte "
                    f"{have}, or download the file by other means to {path}."
                ) from error
    shutil.move(part, output)


def _unpack(path: Path, folder: Path) -> None:
    """Unpack an archive next to its folder, then move it there as a whole."""
    unpacked = path.with_name(f"{path.name}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpacked)  # it never writes outside
        else:
            with tarfile.open(path) as archive:
                archive.extractall(unpacked, filter="data")
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            shutil.copytree(unpacked, folder, dirs_exist_ok=True, copy_function=shutil.move)
        else:  # one rename, so a killed process never leaves half of the examples
            put_in_place(unpacked, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{path} cannot be unpacked ({error}). Delete it and run the command again."
        ) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
