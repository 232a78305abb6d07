import functools
import importlib.util
import io
import os
import pickle
import random
import struct
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from vicinal.data.formats.restricted_pickle import _Dtype, loads
from vicinal.errors import UserError

SHARED = Path(os.environ.get("VICINAL_SHARED", Path(__file__).parents[2] / ".." / "shared"))
PLAIN = [
    *[None, True, False, 0, -1, 255, 65536, -(2**31), 2**64, -(10**30), 1.5, -0.0, float("inf")],
    *[b"", b"\x00\xff\n'", b"x" * 300, "", "a\nb\\", "é 雪 \U0001f600 \ud800", "y" * 300],
    *[[], [1, [2, []]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {b"k": 1, "l": [2]}],
]


def same(ours, theirs):
    """Compare values with their types, arrays with their dtypes."""
    if isinstance(theirs, np.ndarray | np.generic):
        return (
            isinstance(ours, type(theirs))
            and ours.dtype == theirs.dtype
            and ours.shape == theirs.shape
            and ours.tobytes() == theirs.tobytes()
        )
    if type(ours) is not type(theirs):
        return False
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[k], theirs[k]) for k in theirs)
    return repr(ours) == repr(theirs)


def plain(value):
    """Return whether all of a value is of the allowed types, or a function of the unpickler."""
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(map(plain, value)) and all(map(plain, value.values()))
    if isinstance(value, np.ndarray | np.generic | np.dtype):
        return (value if isinstance(value, np.dtype) else value.dtype).kind in "biufc"
    return type(value) in (
        bytes,
        bytearray,
        str,
        int,
        float,
        bool,
        type(None),
        set,
        _Dtype,
    ) or callable(value)


@pytest.fixture(scope="module")
def python2_pickle():
    """Return the function of the shared data that writes pickles as Python 2 did."""
    path = SHARED / "data" / "unpack.py"
    if not path.exists():
        pytest.skip(f"{path} is missing; VICINAL_SHARED names the folder")
    spec = importlib.util.spec_from_file_location("unpack", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def batch(count=6):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 12), np.uint8)
    return {
        b"batch_label": b"training batch 1 of 5",
        b"labels": [int(row[0]) % 10 for row in pixels],
        b"data": pixels,
        b"filenames": [b"%05d.png" % row for row in range(count)],
    }


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_every_protocol_are_unchanged(protocol):
    values = [value for value in PLAIN if value != b"" or protocol > 2]  # written as a call there
    for value in [*values, values]:
        assert same(loads(pickle.dumps(value, protocol), origin="plain"), value), value


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_unchanged(protocol):
    rng = np.random.default_rng(1)
    for code in ["?", "i1", "<i2", ">i4", "u1", "<u8", "f2", ">f4", "<f8"]:
        whole = (rng.random((3, 4, 2)) * 100).astype(code)
        for array in [whole, whole.T, whole[::2], whole[:0], whole[0, 0]]:
            if protocol < 3 and not array.size:
                continue  # Python 3 calls bytes() for no bytes
            data = pickle.dumps(array, protocol)
            ours = loads(data, origin="array")
            np.testing.assert_array_equal(ours, array)
            assert same(ours, pickle.loads(data))  # where NumPy makes it native, so do we
            assert ours.flags.writeable


def test_arrays_and_byte_orders_are_copies():
    assert loads(pickle.dumps(np.array([1], ">i4")), origin="swapped").tolist() == [1]
    assert np.dtype("i4").isnative
    frozen = np.arange(3)
    frozen.flags.writeable = False
    assert loads(pickle.dumps(frozen, 5), origin="frozen").flags.writeable
    assert np.array([1], "i4").tobytes() == struct.pack("=i", 1)


def test_batches_as_python_2_wrote_them_have_bytes_for_keys(python2_pickle):
    data = python2_pickle.python2_pickle(batch())
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in data
    assert same(loads(data, origin="data_batch_1"), batch())


def test_a_real_batch_reads_as_the_standard_library_reads_it(python2_pickle):
    labels = np.load(SHARED / "data" / "cifar10" / "test_labels.npy").tolist()
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 3072), np.uint8)
    data = python2_pickle.python2_pickle({b"labels": labels, b"data": pixels})
    ours = loads(data, origin="test_batch")
    assert same(ours, pickle.loads(data, encoding="bytes"))
    assert ours[b"labels"] == labels


def test_values_that_appear_twice_are_one_object():
    part = [1, 2]
    ours = loads(pickle.dumps([part, part]), origin="shared")
    assert ours == [part, part]
    assert ours[0] is ours[1]


RUN = []


def touch(*_):
    RUN.append("something")


class Reduced:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments, state) if state else (function, arguments)

    def __reduce__(self):
        return self.call


class Sub(np.ndarray):
    pass


class Ours:
    def __setstate__(self, state):
        touch()


class PersistentPickler(pickle.Pickler):
    def persistent_id(self, obj):
        return "anything" if obj == "here" else None


def persistent():
    stream = io.BytesIO()
    PersistentPickler(stream).dump(["here"])
    return stream.getvalue()


CALLED = f"c{__name__}\ntouch\n".encode()
NDARRAY = b"cnumpy\nndarray\n"
NEW = b"cnumpy.core.multiarray\n_reconstruct\n(" + NDARRAY + b"(I0\ntS'b'\ntR"
U1 = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"


def array_of(shape, raw=b"S''\n", dtype=U1):
    return NEW + b"(I1\n" + shape + dtype + b"I0\n" + raw + b"tb."


def pickled(function, *arguments, state=None):
    return pickle.dumps(Reduced(function, *arguments, state=state))


HOSTILE = {
    "a call of os.system": lambda: pickled(os.system, "true"),
    "a call of eval": lambda: pickled(eval, f"__import__('sys').modules['{__name__}'].touch()"),
    "a call of ours": lambda: pickled(touch),
    "getattr": lambda: pickled(getattr, touch, "__call__"),
    "functools.partial": lambda: pickle.dumps(functools.partial(touch)),
    "an import": lambda: pickled(__import__, "antigravity"),
    "numpy.load": lambda: pickled(np.load, "/etc/passwd"),
    "numpy's own test runner": lambda: b"cnumpy.testing._private.utils\nrunstring\n(S'1'\n}tR.",
    "a name with dots": lambda: b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",
    "an object with a state": lambda: pickle.dumps(Ours()),
    "an object made by INST": lambda: b"(i" + CALLED[1:] + b".",
    "an object made by OBJ": lambda: b"(" + NDARRAY + b"o.",
    "an object made by NEWOBJ": lambda: NDARRAY + b")\x81.",
    "a subclass of array": lambda: pickle.dumps(np.zeros(2).view(Sub)),
    "a subclass of dict": lambda: pickle.dumps(OrderedDict(a=1)),
    "a persistent id": persistent,
    "an extension code": lambda: b"\x80\x02\x82\x01.",
    "an array of objects": lambda: pickle.dumps(np.array([touch, None])),
    "a structured array": lambda: pickle.dumps(np.zeros(2, "i4,i4")),
    "an array of strings": lambda: pickle.dumps(np.array(["a"])),
    "an array of dates": lambda: pickle.dumps(np.zeros(1, "M8[s]")),
    "a dtype by a class": lambda: b"cnumpy\ndtype\n(" + NDARRAY + b"tR.",
    "a call of a value": lambda: b"I1\n)R.",
    "a call of ndarray": lambda: NDARRAY + b"((I9\nttR.",
    "a state for a function": lambda: NDARRAY + b"N}S'__defaults__'\n)s\x86b.",
    "a dtype of objects": lambda: b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
    "a protocol to come": lambda: b"\x80\x06N.",
    "an escape of no meaning": lambda: b"S'\\q'\n.",
    "an encoding of its own": lambda: b"c_codecs\nencode\n(Vab\nVrot13\ntR.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_pickles_that_name_anything_else_raise_an_error_and_run_nothing(what):
    with pytest.raises(UserError, match=r"^evil: cannot be unpickled safely"):
        loads(HOSTILE[what](), origin="evil")
    assert not RUN


def test_the_standard_unpickler_runs_the_hostile_pickles():
    # Without this, the test above could pass with pickles that do nothing anywhere.
    for what in ("a call of ours", "an object made by INST", "a call of eval"):
        try:
            pickle.loads(HOSTILE[what]())
        finally:
            ran = list(RUN)
            RUN.clear()
        assert ran, what


def doubled(between=b"", times=60):
    """A key of the same tuple twice, of the same tuple twice, and so on."""
    layers = b"".join(between + b"q%c(" % n + b"h%c" % n * 2 + b"t" for n in range(times))
    return b"\x80\x02)" + layers + between + b"q%c}h%cNs." % (times, times)


BOMBS = {
    "a key that doubles": doubled,
    "a key that doubles after a value was removed": lambda: doubled(b"N0"),
    "a key that doubles after a state was set": lambda: doubled(b"Nb"),
    "a key that doubles after a protocol": lambda: doubled(b"\x80\x02"),
    "a key that doubles by DUP": lambda: b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    "marks and nothing else": lambda: b"(" * 100_000 + b".",
    "a string that lies": lambda: b"T\xff\xff\xff\x7fabc.",
    "a negative string": lambda: b"T\xff\xff\xff\xffabc.",
    "bytes that lie": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "bytes that lie beyond memory": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**64 - 1) + b"a.",
    "a bytearray that lies": lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.",
    "a text that lies": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc.",
    "a memo index that lies": lambda: b"\x80\x02]r\xff\xff\xff\x7f.",
    "an integer that lies": lambda: b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "an integer of 10,000 digits": lambda: b"L" + b"9" * 10_000 + b"L\n.",
    "an array that lies": lambda: array_of(b"(I1000000000000\nt"),
    "an array of a negative size": lambda: array_of(b"(I-1\nI0\nt"),
    "an array of two negative sizes": lambda: array_of(b"(I-1\nI-1\nt", b"S'a'\n"),
    "an array with bytes left over": lambda: (
        b"cnumpy.core.numeric\n_frombuffer\n(S'abc'\n" + U1 + b"(I2\ntVC\ntR."
    ),
    "an array whose size overflows": lambda: array_of(b"(I0\nI9223372036854775807\nI9\nt"),
    "an array that is too short": lambda: array_of(b"(I3\nt", b"S'ab'\n"),
    "an array filled twice": lambda: (
        array_of(b"(I0\nt")[:-1] + b"(I1\n(I0\nt" + U1 + b"I0\nS''\ntb."
    ),
    "one string for many arrays": lambda: (
        b"\x80\x02](T" + struct.pack("<i", 2**20) + bytes(2**20) + b"q\x00"
        + (NEW + b"(I1\n(I1048576\nt" + U1 + b"I0\nh\x00tb") * 300 + b"e."
    ),
    "one text encoded many times": lambda: (
        b"\x80\x02](X" + struct.pack("<i", 2**20) + b"a" * 2**20 + b"q\x00"
        + b"c_codecs\nencode\n(h\x00Vlatin1\ntR" * 300 + b"e."
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BOMBS)
def test_a_pickle_that_claims_too_much_takes_neither_memory_nor_time(what):
    data = BOMBS[what]()
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(UserError, match=r"^bomb: cannot be unpickled"):
            loads(data, origin="bomb")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000 + 100 * len(data)
    assert time.process_time() - start < 20


def test_a_pickle_of_too_many_opcodes_raises_an_error(monkeypatch):
    monkeypatch.setattr("vicinal.data.formats.restricted_pickle._MOST_OPCODES", 1000)
    assert loads(b"N" + b"q\x00" * 998 + b".", origin="long") is None
    with pytest.raises(UserError, match="at most 1,000 opcodes"):
        loads(b"N" + b"q\x00" * 999 + b".", origin="long")


def test_an_incomplete_pickle_raises_an_error():
    data = pickle.dumps(batch(2), protocol=2)
    for length in range(len(data)):
        with pytest.raises(UserError, match=r"^cut: cannot be unpickled"):
            loads(data[:length], origin="cut")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_damaged_pickles_raise_an_error_or_give_known_types(protocol):
    chance = random.Random(protocol)
    whole = pickle.dumps({**batch(3), "more": [value for value in PLAIN[:-9] if value]}, protocol)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 5])):
            at = chance.randrange(len(damaged))
            kind = chance.randrange(4)
            if kind == 0:
                damaged[at] = chance.randrange(256)
            elif kind == 1:
                damaged[at] ^= 1 << chance.randrange(8)
            elif kind == 2:
                del damaged[at : at + chance.randrange(1, 9)]
            else:
                other = chance.randrange(len(damaged))
                damaged[at:at] = damaged[other : other + chance.randrange(1, 40)]
        try:
            value = loads(bytes(damaged), origin="damaged")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017 (whether it is raised is left to chance)
        else:
            assert plain(value)
    assert 40 < refused < 300
