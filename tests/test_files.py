import errno
import os
import re
import resource
import stat
import subprocess
import sys

import pytest

from vicinal.errors import UserError
from vicinal.files import TEMPORARY, sweep, write_whole


def test_folders_are_made_and_files_are_readable_like_any_other(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_whole(path, "µ")
    assert path.read_bytes() == b"\xc2\xb5"
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def no_file_beyond(size):
    """Let writes fail half-way, as on a full disk; in a child, since logs are files too."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    write_whole(path, "old")
    code = (
        "import sys, pathlib; from vicinal.files import TEMPORARY, sweep, write_whole;"
        "write_whole(pathlib.Path(sys.argv[1]), 'x' * 5000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        preexec_fn=no_file_beyond(1000),
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"UserError: .*result\.json cannot be written: File too large", done.stderr)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"table\.md cannot be written: No space left on device"):
        write_whole(tmp_path / "table.md", "text")
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_a_study_further_down_are_left_alone(tmp_path):
    name = f".file.x{TEMPORARY}"
    ours = [tmp_path / place / name for place in ("", "figures", "trials/erm-seed0")]
    theirs = [tmp_path / "digits" / place / name for place in ("", "figures", "trials/erm-seed0")]
    for path in ours + theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    sweep(tmp_path)
    assert not [path for path in ours if path.exists()]
    assert all(path.exists() for path in theirs)
