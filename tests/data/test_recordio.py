import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vicinal.data.formats.recordio import (
    MAGIC,
    RecordFile,
    image_labels,
    pack_image,
    read_index,
    write_record,
)
from vicinal.errors import UserError

MXNET = Path(__file__).parent / "mxnet"
FILES = sorted(MXNET.glob("*.rec"))
MAGIC_BYTES = struct.pack("<I", MAGIC)


def payloads(path):
    file = RecordFile(path)
    return [file.read(*record) for record in file.scan()]


def framed(records):
    out = io.BytesIO()
    for record in records:
        write_record(out, record)
    return out.getvalue()


def written(path, content):
    path.write_bytes(content)
    return path


def test_payloads_that_contain_the_magic_number_are_read_like_in_mxnet():
    lines = (MXNET / "magic_inside.hex").read_text().split()
    assert [payload.hex() for payload in payloads(MXNET / "magic_inside.rec")] == lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_records_are_framed_byte_for_byte_like_in_mxnet(path):
    assert framed(payloads(path)) == path.read_bytes()


@pytest.mark.parametrize("name", ["digits_40_jpg", "digits_40_png"])
def test_an_index_of_mxnet_lists_the_records_that_a_scan_finds(name):
    walked = [offset for offset, _ in RecordFile(MXNET / f"{name}.rec").scan()]
    assert read_index(MXNET / f"{name}.idx").tolist() == walked
    assert len(walked) == 40


parts = st.lists(st.one_of(st.just(MAGIC_BYTES), st.binary(max_size=9)), max_size=6)


@given(st.lists(parts.map(b"".join), min_size=1, max_size=5))
def test_any_payloads_are_read_as_they_were_written(tmp_path_factory, records):
    path = written(tmp_path_factory.mktemp("any") / "any.rec", framed(records))
    assert payloads(path) == records


def test_the_magic_number_only_begins_records_and_parts():
    # A reader that was thrown off looks for the number at multiples of four: what it finds there
    # must be a frame, so payloads may hold it at other places only.
    content = framed([b"ab" + MAGIC_BYTES + MAGIC_BYTES + b"cd", MAGIC_BYTES * 3, b""])
    words = np.frombuffer(content, "<u4")
    at = np.flatnonzero(words == MAGIC) * 4
    kinds = [struct.unpack_from("<I", content, offset + 4)[0] >> 29 for offset in at]
    assert kinds == [0, 1, 2, 2, 3, 0]


def test_records_larger_than_a_block_are_scanned(tmp_path):
    records = [bytes([k]) * size for k, size in enumerate((70_000, 3, 200_001, 0, 65_536))]
    path = written(tmp_path / "large.rec", framed(records))
    assert payloads(path) == records
    assert [length for _, length in RecordFile(path).scan()] == [len(r) for r in records]


def test_an_unpickled_record_file_opens_the_file_again():
    file = RecordFile(FILES[0])
    again = pickle.loads(pickle.dumps(file))
    record = next(file.scan())
    assert again.read(*record) == file.read(*record)
    assert again._file != file._file


def test_labels_are_in_the_header_or_after_it():
    one, many = (payloads(MXNET / f"digits_{name}.rec") for name in ("40_png", "label_vectors"))
    labels, begin = image_labels(one[0])
    assert labels.tolist() == [0.0]
    assert one[0][begin:].startswith(b"\x89PNG")
    for k, record in enumerate(many):
        labels, begin = image_labels(record)
        assert labels.tolist() == [k, k / 2, -1]
        assert record[begin:].startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["40_png", "label_vectors"])
def test_image_records_are_packed_as_mxnet_packs_them(name):
    for k, record in enumerate(payloads(MXNET / f"digits_{name}.rec")):
        labels, begin = image_labels(record)
        assert pack_image(labels, k, record[begin:]) == record


GOOD = framed([b"abcd", b"efg"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty one"),
        (b"\x89PNG\r\n\x1a\n", "byte 0: expected a RecordIO record, got 0x474e5089"),
        (GOOD[:-4], "byte 12: .* a record of 3 bytes, but only 0 bytes are left in the file"),
        (GOOD[:15], "byte 12: .* the end of the file"),
        (GOOD[:-1], "byte 23: .* the end of the file inside a record"),
        (GOOD[:4] + struct.pack("<I", 2**29 - 1) + GOOD[8:], "byte 0: .* of 536870911 bytes"),
        (GOOD[:4] + struct.pack("<I", 5 << 29 | 4) + GOOD[8:], "a record of the unknown kind 5"),
        (
            GOOD[:4] + struct.pack("<I", 2 << 29 | 4) + GOOD[8:],
            "byte 0: .* parts of a record in the wrong order",
        ),
        (
            GOOD[:4] + struct.pack("<I", 1 << 29 | 4) + GOOD[8:],
            "byte 12: .* parts of a record in the wrong order",
        ),
    ],
)
def test_a_damaged_file_raises_an_error_with_the_byte(tmp_path, content, message):
    path = written(tmp_path / "bad.rec", content)
    with pytest.raises(UserError, match=message):
        payloads(path)


def test_a_record_that_has_changed_since_the_scan_raises_an_error(tmp_path):
    file = RecordFile(written(tmp_path / "good.rec", GOOD))
    for record in ((4, 4), (99, 4), (0, 5), (4, -1)):
        with pytest.raises(UserError, match=rf"byte {record[0]}: expected a RecordIO record"):
            file.read(*record)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t0\nx\t4\n", "line 2: expected a new key, a tab and an offset, got 'x"),
        ("0 0\n", "line 1: expected a new key"),
        ("0\t0\n0\t8\n", "line 2: expected a new key"),
        ("0\t8\n1\t8\n", "expected different offsets"),
        ("0\t9999999999999999999\n", "line 1: expected a new key, a tab and an offset"),
        ("0\t" + "9" * 5000, "line 1: expected a new key"),
        ("\u00e9", "bad.idx: expected a text file"),
    ],
)
def test_a_damaged_index_raises_an_error_with_the_line(tmp_path, text, message):
    path = tmp_path / "bad.idx"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        read_index(path)


def test_an_image_record_that_is_too_short_raises_an_error():
    with pytest.raises(ValueError, match=r"expected an image record of at least 24 bytes, got 5"):
        image_labels(b"short")
    lying = struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0) + b"four"
    with pytest.raises(
        ValueError, match=r"its header states 4294967295 labels, got a record of 28 bytes"
    ):
        image_labels(lying)


def test_a_missing_record_file_raises_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no\.rec cannot be read: No such file"):
        RecordFile(tmp_path / "no.rec")
