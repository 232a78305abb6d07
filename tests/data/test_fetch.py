import contextlib
import hashlib
import io
import itertools
import os
import re
import socket
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from vicinal.data.fetch import ARCHIVES, Archive, fetch
from vicinal.errors import UserError

BODY = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Serves one body, and is as unreliable as a test asks for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"
        self.asked = []
        self.body = BODY
        self.drops = []  # after how many bytes each of the next responses ends
        self.ranges, self.status, self.claims = True, 200, 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(dict(self.headers))
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if server.ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(server.body) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(server.body)}")
        self.send_header("Content-Length", str(len(rest) + server.claims))
        self.end_headers()
        self.wfile.write(rest[: server.drops.pop(0)] if server.drops else rest)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sets(server, *, body=BODY, folder="", unpack=None):
    checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return {"set": (Archive(server.url, checksum, folder, unpack),)}


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_downloaded_only_once(server, tmp_path):
    archives = sets(server, folder="deep")
    for _ in range(2):
        assert fetch("set", tmp_path / "root", archives=archives) == [
            tmp_path / "root/deep/file.bin"
        ]
    assert (tmp_path / "root/deep/file.bin").read_bytes() == BODY
    assert names(tmp_path / "root") == ["deep", "deep/file.bin"]
    assert len(server.asked) == 1


def test_a_file_with_a_wrong_checksum_is_downloaded_again(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(BODY[:-1])
    fetch("set", tmp_path, archives=sets(server))
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_progress_starts_at_zero_and_ends_at_the_total(server, tmp_path):
    seen = []
    fetch("set", tmp_path, archives=sets(server), progress=lambda *now: seen.append(now))
    assert seen[0] == ("file.bin", 0, len(BODY))
    assert seen[-1] == ("file.bin", len(BODY), len(BODY))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_a_broken_connection_is_resumed_where_it_broke(server, tmp_path):
    server.drops = [100_000, 50_000]
    fetch("set", tmp_path, archives=sets(server))
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert [asked.get("Range") for asked in server.asked] == [
        None,
        "bytes=100000-",
        "bytes=150000-",
    ]
    assert names(tmp_path) == ["file.bin"]


def test_after_a_failure_the_same_command_resumes(server, tmp_path):
    server.drops = [70_000, 0]
    with pytest.raises(UserError, match=r"cannot be downloaded: .* to resume at byte 70000"):
        fetch("set", tmp_path, archives=sets(server))
    assert (tmp_path / "file.bin.part").read_bytes() == BODY[:70_000]
    assert not (tmp_path / "file.bin").exists()
    server.drops, server.asked = [], []
    seen = []
    fetch("set", tmp_path, archives=sets(server), progress=lambda *now: seen.append(now))
    assert [asked["Range"] for asked in server.asked] == ["bytes=70000-"]
    assert seen[0] == ("file.bin", 70_000, len(BODY))
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert names(tmp_path) == ["file.bin"]


def test_a_connection_that_often_breaks_but_makes_progress_is_retried(server, tmp_path):
    server.drops = [1000] * 9
    fetch("set", tmp_path, archives=sets(server))
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert len(server.asked) == 10


def test_a_download_starts_over_where_the_server_ignores_ranges(server, tmp_path):
    server.drops, server.ranges = [100_000], False
    seen = []
    fetch("set", tmp_path, archives=sets(server), progress=lambda *now: seen.append(now))
    assert seen[-1] == ("file.bin", len(BODY), len(BODY))
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_two_broken_connections_without_ranges_raise_an_error(server, tmp_path):
    server.drops, server.ranges = [100_000] * 50, False
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch("set", tmp_path, archives=sets(server))
    assert len(server.asked) == 2


def test_a_part_file_of_another_version_is_deleted(server, tmp_path):
    server.drops = [100_000, 0]
    with pytest.raises(UserError):
        fetch("set", tmp_path, archives=sets(server))
    server.drops, server.body = [], BODY[::-1]
    archives = sets(server, body=BODY[::-1])
    with pytest.raises(UserError, match=r"does not match the known hash.* Try again"):
        fetch("set", tmp_path, archives=archives)
    fetch("set", tmp_path, archives=archives)
    assert (tmp_path / "file.bin").read_bytes() == BODY[::-1]


def test_a_complete_part_file_is_not_downloaded_again(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(BODY)
    fetch("set", tmp_path, archives=sets(server))
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert names(tmp_path) == ["file.bin"]


def test_a_wrong_checksum_names_both_and_deletes_the_file(server, tmp_path):
    server.body = BODY[:1000]
    came, wanted = (hashlib.sha256(body).hexdigest() for body in (BODY[:1000], BODY))
    with pytest.raises(UserError, match=f"expected sha256:{wanted} but got {came}"):
        fetch("set", tmp_path, archives=sets(server))
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"?" * 1000, BODY + b"more"])
def test_a_damaged_part_file_is_deleted(server, tmp_path, content):
    (tmp_path / "file.bin.part").write_bytes(content)
    with pytest.raises(UserError, match="does not match the known hash"):
        fetch("set", tmp_path, archives=sets(server))
    fetch("set", tmp_path, archives=sets(server))
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_content_length_that_is_too_large_is_ignored_if_the_checksum_is_right(server, tmp_path):
    server.claims = 7
    fetch("set", tmp_path, archives=sets(server))
    assert [asked.get("Range") for asked in server.asked] == [None, f"bytes={len(BODY)}-"]
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_content_length_that_is_never_reached_is_a_broken_connection(server, tmp_path):
    server.claims, server.ranges = 7, False
    with pytest.raises(UserError, match=rf"to resume at byte {len(BODY)}, or"):
        fetch("set", tmp_path, archives=sets(server))


def test_a_content_length_that_is_too_short_gives_a_wrong_checksum(server, tmp_path):
    server.claims = -7
    with pytest.raises(UserError, match="does not match the known hash"):
        fetch("set", tmp_path, archives=sets(server))


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_error_of_the_server_is_shown(server, tmp_path, status):
    server.status = status
    with pytest.raises(
        UserError, match=rf"^{server.url} cannot be downloaded: {status} .* Error: \w+"
    ):
        fetch("set", tmp_path, archives=sets(server))
    assert len(server.asked) == 1
    assert names(tmp_path) == []


def test_an_error_says_that_the_connection_was_refused(tmp_path):
    with socket.socket() as taken:  # bound but not listening, so connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file.bin"
        archives = {"set": (Archive(url, "md5:0"),)}
        with pytest.raises(UserError, match=rf"^{url} cannot be downloaded: .*refused"):
            fetch("set", tmp_path, archives=archives)


def test_an_invalid_url_raises_an_error(tmp_path):
    archives = {"set": (Archive("nowhere", "md5:0"),)}
    with pytest.raises(UserError, match="nowhere cannot be downloaded"):
        fetch("set", tmp_path, archives=archives)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_the_error_of_a_full_disk_is_passed_on(server, tmp_path):
    (tmp_path / "file.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        fetch("set", tmp_path, archives=sets(server))


def test_an_unknown_data_set_raises_an_error_with_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match=r"no data set to fetch 'cifar-10'. Did you mean 'cifar10'"):
        fetch("cifar-10", tmp_path)


def packed(*members):
    """A tar archive of members: a name and bytes, or a name and a link's target."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
    return stream.getvalue()


def test_a_tar_archive_is_unpacked_once(server, tmp_path):
    server.body = packed(("yes/a.wav", b"yes"), ("list.txt", b"a"))
    archives = sets(server, body=server.body, unpack="words")
    assert fetch("set", tmp_path, archives=archives) == [tmp_path / "words"]
    assert (tmp_path / "words/yes/a.wav").read_bytes() == b"yes"
    assert names(tmp_path / "words") == ["list.txt", "yes", "yes/a.wav"]
    (tmp_path / "file.bin").unlink()
    (tmp_path / "words/list.txt").write_text("changed by hand")
    assert fetch("set", tmp_path, archives=archives) == [tmp_path / "words"]
    assert (tmp_path / "words/list.txt").read_text() == "changed by hand"
    assert len(server.asked) == 1


def test_a_zip_archive_is_unpacked_next_to_existing_files(server, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("abalone.data", "M,1")
    server.body = stream.getvalue()
    (tmp_path / "uci").mkdir()
    (tmp_path / "uci/other.csv").write_text("1")
    fetch("set", tmp_path, archives=sets(server, body=server.body, unpack="uci"))
    assert names(tmp_path / "uci") == ["abalone.data", "other.csv"]


@pytest.mark.parametrize(
    "members",
    [
        [("../out.txt", b"out")],
        [("a/../../out.txt", b"out")],
        [("link", "../.."), ("link/out.txt", b"out")],
        [("link", "/etc/passwd")],
    ],
)
def test_members_outside_the_folder_raise_an_error(server, tmp_path, members):
    server.body = packed(("good.txt", b"good"), *members)
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch("set", tmp_path / "root", archives=sets(server, body=server.body, unpack="words"))
    assert names(tmp_path) == ["root", "root/file.bin"]


def test_a_member_with_an_absolute_path_stays_inside_the_folder(server, tmp_path):
    server.body = packed(("/out.txt", b"out"))
    fetch("set", tmp_path, archives=sets(server, body=server.body, unpack="words"))
    assert (tmp_path / "words/out.txt").read_bytes() == b"out"


def test_a_file_that_is_not_an_archive_raises_an_error(server, tmp_path):
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch("set", tmp_path, archives=sets(server, unpack="words"))


def test_every_archive_has_a_checksum_and_a_path_of_its_own():
    every = [archive for archives in ARCHIVES.values() for archive in archives]
    assert len({archive.file for archive in every}) == len(every) == 13
    for archive in every:
        assert re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", archive.checksum)
        assert re.match("https?://", archive.url)


def test_interrupted_unpacking_never_leaves_some_of_the_examples(server, tmp_path, monkeypatch):
    server.body = packed(("yes/a.wav", b"yes"), ("list.txt", b"a"), ("no/b.wav", b"no"))
    rename = os.rename
    for stopped in range(2, 6):
        root, count = tmp_path / str(stopped), itertools.count(1)

        def stop(*args, stopped=stopped, count=count):
            if next(count) == stopped:
                raise KeyboardInterrupt
            return rename(*args)

        monkeypatch.setattr(os, "rename", stop)
        with contextlib.suppress(KeyboardInterrupt):
            fetch("set", root, archives=sets(server, body=server.body, unpack="words"))
        there = names(root / "words") if (root / "words").exists() else []
        assert there in ([], ["list.txt", "no", "no/b.wav", "yes", "yes/a.wav"])


def test_a_download_by_another_process_is_not_disturbed(server, tmp_path):
    with (
        FileLock(tmp_path / ".file.bin.lock"),
        pytest.raises(UserError, match=r"file\.bin is being downloaded by another process"),
    ):
        fetch("set", tmp_path, archives=sets(server))
    assert fetch("set", tmp_path, archives=sets(server)) == [tmp_path / "file.bin"]
    assert names(tmp_path) == ["file.bin"]
