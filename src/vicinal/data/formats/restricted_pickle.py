"""Unpickling of plain values and NumPy arrays, without running what a pickle names."""

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

from vicinal.errors import UserError

# The training file of CIFAR-100, the longest that this reads, has about 200,000.
_MOST_OPCODES = 2_000_000
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_REUSABLE = {"EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "STACK_GLOBAL", "REDUCE"}
_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


def loads(data: bytes, *, origin: str) -> Any:
    """Unpickle lists, tuples, dicts, strings, numbers and arrays of numbers.

    Strings of Python 2 become ``bytes``. Memory is bounded by the length of ``data``: lengths that
    the pickle claims are checked before anything is allocated.

    Args:
        data: the whole pickle.
        origin: file, or file and member, for the error.

    Raises:
        UserError: if the pickle names anything but NumPy's reconstruction of arrays, or is damaged
            or incomplete. No code of it was run.

    Example:
        >>> import pickle
        >>> loads(pickle.dumps({"labels": [3, 1]}), origin="data_batch_1")
        {'labels': [3, 1]}
        >>> loads(pickle.dumps(print), origin="x")
        Traceback (most recent call last):
        vicinal.errors.UserError: x: cannot be unpickled safely ('builtins.print' is not ...
    """
    try:
        _check_opcodes(data)
        return _Unpickler(data).load()
    except Exception as error:  # damaged pickles raise errors of every kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{origin}: cannot be unpickled safely ({reason}). Download the file again from its "
            "authors."
        ) from error


def _check_opcodes(data: bytes) -> None:
    """Raise before the standard unpickler allocates or computes what a damaged pickle asks for.

    Lengths and memo indices may claim more than there is. A tuple that is reused in another one,
    and so on, takes exponential time to hash.
    """
    memo: dict[Any, bool] = {}  # whether each value may be reused, since it is no tuple
    reusable = False
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if number >= _MOST_OPCODES:
            raise ValueError(f"expected at most {_MOST_OPCODES:,} opcodes")
        if opcode.name in _PUTS:
            index = len(memo) if argument is None else argument
            if index > number:
                raise ValueError(f"memo index {index} at opcode {number} is out of order")
            memo[index] = reusable
        elif opcode.name == "DUP" or (opcode.name in _GETS and not memo.get(argument)):
            raise ValueError("only strings, lists, dictionaries and arrays may be reused")
        reusable = opcode.name in _REUSABLE or isinstance(argument, str | bytes)


class _Unpickler(pickle.Unpickler):
    """Knows a few names, all of which stand for functions of this module."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        # Python 3 writes arrays as text in protocols 0 to 2, which is encoded and then copied.
        self._left = 2 * len(data)

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "numpy.core.multiarray._reconstruct": self._new_array,
            "numpy.core.numeric._frombuffer": self._array_of_buffer,
            "numpy.ndarray": None,
            "numpy.dtype": _new_dtype,
            "_codecs.encode": self._encode,
        }
        path = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if path not in known:
            raise pickle.UnpicklingError(f"{f'{module}.{name}'[:80]!r} is not allowed")
        return known[path]

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError("the pickle copies more bytes than it contains")

    def _new_array(self, *_: object) -> "_Array":
        array = np.empty(0, np.uint8).view(_Array)
        array.unpickler = self
        return array

    def _array_of_buffer(self, raw: Any, dtype: "_Dtype", shape: Any, order: Any) -> np.ndarray:
        self.spend(len(raw))
        return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order).copy()

    def _encode(self, text: str, encoding: object) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"expected strings encoded as latin1, got {encoding!r:.100}")
        self.spend(len(text))
        return text.encode("latin1")


class _Array(np.ndarray):
    """An array that checks its contents before NumPy allocates them."""

    unpickler: _Unpickler

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        dtype = dtype.dtype
        if not all(type(side) is int and 0 <= side < 1 << 40 for side in shape):
            raise ValueError("the shape of an array is damaged")
        if not isinstance(raw, bytes) or math.prod(shape) * dtype.itemsize != len(raw):
            raise ValueError(f"expected an array of shape {shape} {dtype}, got {len(raw)} bytes")
        self.unpickler.spend(len(raw))
        del self.unpickler  # so that it can be filled once, and does not keep the pickle in memory
        super().__setstate__((1, shape, dtype, bool(fortran), raw))  # type: ignore[arg-type]


class _Dtype:
    """A dtype that only the byte order can be set of."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, code, *rest = state
        if rest != [None, None, None, -1, -1, 0]:
            raise ValueError("arrays with fields are not allowed")
        order: Any = code.decode() if isinstance(code, bytes) else code
        self.dtype = self.dtype.newbyteorder(order)


def _new_dtype(code: Any, *_: object) -> _Dtype:
    name = code.decode() if isinstance(code, bytes) else code
    if name not in _DTYPES:
        raise ValueError(f"arrays of {str(name)[:20]!r} are not allowed")
    return _Dtype(name)
