import errno
import os
import resource
import stat

import pytest

from vicinal.errors import UserError
from vicinal.studies.files import write_whole


@pytest.fixture
def small_files():
    """Let no file grow beyond 1,000 bytes: a write fails half-way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_folders_are_made_and_files_are_readable_like_any_other(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_whole(path, "µ")
    assert path.read_bytes() == b"\xc2\xb5"
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.usefixtures("small_files")
def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    write_whole(path, "old")
    with pytest.raises(UserError, match=r"result\.json cannot be written: File too large.*--out"):
        write_whole(path, "x" * 5000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"table\.md cannot be written: No space left on device"):
        write_whole(tmp_path / "table.md", "text")
    assert list(tmp_path.iterdir()) == []
