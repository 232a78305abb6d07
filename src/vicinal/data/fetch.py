"""Downloading the archives of data sets from the places where their makers keep them."""

import functools
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vicinal.errors import UserError, unknown
from vicinal.files import put_in_place

Progress = Callable[[str, int, int | None], None]
"""Is told the name of a file, how many bytes of it are there, and of how many, if that is known."""

_TRIES = 5
_CHUNK = 1 << 18
_SECONDS = 30


class Archive(NamedTuple):
    """A file to download.

    Args:
        url: where it is.
        checksum: ``"md5:..."`` or ``"sha256:..."`` of the file.
        file: where it is put, under the root.
        unpack: folder under the root that it is unpacked into; None if it stays as it is.
    """

    url: str
    checksum: str
    file: str
    unpack: str | None = None


def _four(base: str, folder: str, *checksums: str) -> tuple[Archive, ...]:
    names = [
        f"{part}-{kind}-ubyte.gz" for part in _PARTS for kind in ("images-idx3", "labels-idx1")
    ]
    return tuple(
        Archive(f"{base}/{name}", f"md5:{checksum}", f"{folder}/{name}")
        for name, checksum in zip(names, checksums, strict=True)
    )


_PARTS = "train", "t10k"
_TORONTO = "https://www.cs.toronto.edu/~kriz"
_UCI = "https://archive.ics.uci.edu/static/public"

ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "cifar10": (
        Archive(
            f"{_TORONTO}/cifar-10-python.tar.gz",
            "md5:c58f30108f718f92721af3b95e74349a",
            "cifar-10-python.tar.gz",
        ),
    ),
    "cifar100": (
        Archive(
            f"{_TORONTO}/cifar-100-python.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
            "cifar-100-python.tar.gz",
        ),
    ),
    "mnist": _four(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "mnist",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion-mnist": _four(
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
            "speech_commands_v0.02.tar.gz",
            unpack="speech_commands_v0.02",
        ),
    ),
    "abalone": (
        Archive(
            f"{_UCI}/1/abalone.zip",
            "sha256:755a6a67c5b266961a3f149ea13be2cfb6e6c727e48cee3c83bc0b4526210ee4",
            "uci/abalone.zip",
            unpack="uci",
        ),
    ),
    "htru2": (
        Archive(
            f"{_UCI}/372/htru2.zip",
            "sha256:ba442c076dd22a8952700f26e38499fc1806037dcf7bea0e125e6bfba393f379",
            "uci/htru2.zip",
            unpack="uci",
        ),
    ),
}
"""The archives of each data set that can be fetched."""


def fetch(
    name: str,
    root: Path,
    *,
    archives: Mapping[str, tuple[Archive, ...]] = ARCHIVES,
    progress: Progress = lambda name, done, total: None,
) -> list[Path]:
    """Download the archives of a data set, where they are not there yet.

    A file whose checksum is right is left alone. A download that breaks off leaves ``NAME.part``
    behind, and the next call goes on where it ended, if the server can do that. Archives that are
    unpacked leave ``NAME.unpacked``, an empty file: with it, the archive may be deleted.

    Args:
        name: one of ``archives``.
        root: folder to download into; it is made.
        archives: what there is.
        progress: is called for each piece that arrives.

    Returns:
        For each archive the file, or the folder that it was unpacked into.

    Raises:
        UserError: if there is no such data set, a server cannot be reached or refuses, the
            connection breaks again and again, the checksum of what came is wrong, or an archive
            wants to write outside its folder.
        OSError: if the disk is full, or may not be written to.

    Example:
        >>> import tempfile
        >>> page = Path(tempfile.mkdtemp(), "page.txt")
        >>> page.write_text("hello")
        5
        >>> local = Archive("http://localhost/", "md5:5d41402abc4b2a76b9719d911017c592", "page.txt")
        >>> [path.name for path in fetch("page", page.parent, archives={"page": (local,)})]
        ['page.txt']
    """
    if name not in archives:
        raise UserError(unknown("data set to fetch", name, archives))
    return [_fetch_one(archive, root.resolve(), progress) for archive in archives[name]]


def _fetch_one(archive: Archive, root: Path, progress: Progress) -> Path:
    import pooch

    path = root / archive.file
    done = path.with_name(f"{path.name}.unpacked")
    if archive.unpack and done.exists() and (root / archive.unpack).is_dir():
        return root / archive.unpack
    pooch.get_logger().setLevel("WARNING")  # the caller draws the progress
    pooch.retrieve(
        archive.url,
        known_hash=archive.checksum,
        fname=path.name,
        path=path.parent,
        downloader=functools.partial(_download, path=path, archive=archive, progress=progress),
    )
    if archive.unpack is None:
        return path
    _unpack(path, root / archive.unpack)
    done.touch()
    return root / archive.unpack


def _download(
    url: str, output: str, _: object, *, path: Path, archive: Archive, progress: Progress
) -> None:
    """Download into ``NAME.part``, going on with what is there; then move it to ``output``."""
    import pooch
    import requests
    import urllib3

    part = path.with_name(f"{path.name}.part")
    tag = path.with_name(f"{path.name}.part.etag")
    failures = 0
    while True:
        before = _size(part)
        try:
            _go_on(url, part, tag, lambda done, total: progress(path.name, done, total))
            break
        except (requests.ConnectionError, requests.Timeout) as error:
            raise UserError(
                f"{url} cannot be reached ({_cause(error)}); see whether the network is there, "
                "then give the same command again"
            ) from error
        except requests.RequestException as error:
            raise UserError(f"{url} cannot be downloaded ({_cause(error)})") from error
        except urllib3.exceptions.HTTPError as error:  # it broke off on the way
            failures = failures + 1 if _size(part) <= before else 1
            if failures == _TRIES:
                raise UserError(
                    f"{url}: the connection broke off {_TRIES} times in a row at byte "
                    f"{_size(part)} ({_cause(error)}); the same command goes on from there"
                ) from error
    tag.unlink(missing_ok=True)
    algorithm, wanted = archive.checksum.split(":")
    came = pooch.file_hash(str(part), alg=algorithm)
    if came != wanted:
        part.unlink()
        raise UserError(
            f"{url}: the {algorithm} checksum of what came is {came}, wanted {wanted}; it was "
            "deleted, try again, and if that helps nothing, the file was changed where it lies"
        )
    shutil.move(part, output)


def _go_on(url: str, part: Path, tag: Path, progress: Callable[[int, int | None], None]) -> None:
    """Ask for what is missing of a part, and add it; or start anew if the server wants that."""
    import requests
    import urllib3

    have = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.exists():
            headers["If-Range"] = tag.read_text("utf-8")
    with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as response:
        if have and response.status_code == 416:  # there is nothing beyond what we have
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            _go_on(url, part, tag, progress)
            return
        if response.status_code not in (200, 206):
            raise UserError(
                f"{url}: the server answered {response.status_code} {response.reason}; try again "
                "later, or download the file by other means and put it where it belongs"
            )
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        goes_on = response.status_code == 206 and start is not None and int(start[1]) == have
        if not goes_on:
            have = 0
        _note(tag, response.headers.get("ETag", ""))
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        with part.open("ab" if goes_on else "wb") as file:
            progress(have, total)
            # Raw: whoever serves a .gz as "Content-Encoding: gzip" means the file all the same.
            for piece in response.raw.stream(_CHUNK, decode_content=False):
                file.write(piece)
                have += len(piece)
                progress(have, total)
        if total is not None and have != total:
            raise urllib3.exceptions.ProtocolError(f"{have} of {total} bytes came")


def _note(tag: Path, etag: str) -> None:
    # A weak tag promises no equal bytes.
    if etag and not etag.startswith("W/"):
        tag.write_text(etag, "utf-8")
    else:
        tag.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cause(error: BaseException) -> str:
    """Return what lies at the bottom of an error that was wrapped again and again."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error) or type(error).__name__


def _unpack(path: Path, folder: Path) -> None:
    """Unpack an archive beside its folder, then put it there whole."""
    beside = path.with_name(f"{path.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(beside)  # cuts off what leads outside
        else:
            with tarfile.open(path) as archive:
                archive.extractall(beside, filter=_inside)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            shutil.copytree(beside, folder, dirs_exist_ok=True, copy_function=shutil.move)
        else:  # in one step, so that a killed process does not leave a part of the examples
            put_in_place(beside, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); delete it and try again") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _inside(member: tarfile.TarInfo, folder: str) -> Any:
    # The filter of the standard library would quietly put /etc/x at etc/x.
    if member.name.startswith("/"):
        raise tarfile.AbsolutePathError(member)
    return tarfile.data_filter(member, folder)
