"""Pickles of plain data and NumPy arrays, read without running anything that they ask for."""

import io
import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vicinal.errors import UserError

# CIFAR-100's training part, the longest that this is for, comes to about 200,000.
_OPERATIONS = 2_000_000
_DEPTH = 100
_DTYPES = "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"
_ESCAPES = {b"\\": b"\\", b"'": b"'", b'"': b'"', b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_KNOWN = {opcode.code: opcode for opcode in pickletools.opcodes}
_PLAIN = bytes, bytearray, str, int, float, bool, type(None), np.ndarray


def loads(data: bytes, *, origin: str) -> object:
    """Read a pickle that holds plain data, such as one of CIFAR's batches.

    Admitted are NumPy arrays, scalars and dtypes of plain numbers (bool, int, uint, float up to 64
    bits, complex), bytes, bytearray, str, int up to 255 bytes, float, bool, None, and lists, tuples
    and dicts of these, with keys that are bytes or str. What Python 2 called str comes as bytes, as
    with ``encoding="bytes"`` of ``pickle.loads``. Protocols 0 to 5; what follows the end is not
    looked at.

    The standard unpickler is not used: it imports what a pickle names, calls what it imported, and
    makes room for as much as a length field claims. Here each opcode does one thing to a stack, no
    name is imported, and the work is bounded by the bytes that there are.

    Args:
        data: the whole pickle.
        origin: file, or file and record, for the error.

    Returns:
        The value. Arrays are its own, and can be written to.

    Raises:
        UserError: if the pickle names anything else, is damaged or incomplete, refers to parts of
            itself so that it unfolds without end, is nested deeper than 100, or takes more than
            2,000,000 opcodes. Nothing of it was run.

    Example:
        >>> import pickle
        >>> loads(pickle.dumps({"labels": [3, 1]}), origin="data_batch_1")
        {'labels': [3, 1]}
        >>> loads(pickle.dumps(print), origin="evil")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        vicinal.errors.UserError: evil: wanted ... 'builtins.print' is not admitted, at byte 30; ...
    """
    stream = io.BytesIO(data)
    state = _State(spare=2 * len(data))
    start = 0
    try:
        for _ in range(_OPERATIONS):
            start = stream.tell()
            name, argument = _opcode(stream)
            if name == "STOP":
                value = state.pop()
                _check_plain(value, state, steps=10 * len(data))
                return value
            _RUN[name](state, argument)
        raise ValueError(f"it takes more than {_OPERATIONS:,} opcodes")
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(
            f"{origin}: wanted a pickle of arrays, strings, numbers, lists, tuples and dicts; "
            f"{str(error)[:200]}, at byte {start}; nothing of it was run, get the file anew from "
            "its makers"
        ) from error


@dataclass
class _State:
    """What a pickle works on: a stack, the stacks below each mark, and a memo.

    ``spare`` is how many bytes may still be copied out of strings. An honest pickle holds the bytes
    of each array once, and Python 3 has them copied twice in protocols 0 to 2: from text to bytes
    and from there to the array. ``unfilled`` keeps the arrays and dtypes that wait for their one
    BUILD.
    """

    spare: int
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    unfilled: dict[int, Any] = field(default_factory=dict)

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise ValueError("it takes from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.below:
            raise ValueError("a mark is missing")
        items, self.stack = self.stack, self.below.pop()
        return items

    def top(self, kind: type = object) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError(f"there is no {kind.__name__} where one is to change")
        return self.stack[-1]

    def spend(self, count: int) -> None:
        self.spare -= count
        if self.spare < 0:
            raise ValueError("it copies more bytes than it holds")


def _opcode(stream: io.BytesIO) -> tuple[str, Any]:
    """Read the next opcode, and its argument by the standard library's own reader."""
    code = stream.read(1)
    known = _KNOWN.get(code.decode("latin-1"))
    if known is None or known.name not in _RUN:
        raise ValueError(f"opcode {known.name if known else code!r} is not admitted")
    # Theirs stumbles over bytes from 128 in strings, and warns of odd escapes in names.
    if known.name == "STRING":
        return known.name, _quoted(stream.readline())
    if known.name == "GLOBAL":
        return known.name, [stream.readline().decode().removesuffix("\n") for _ in range(2)]
    return known.name, known.arg.reader(stream) if known.arg else None


def _quoted(line: bytes) -> bytes:
    """Return the string that Python 2's repr wrote as this line."""
    found = re.fullmatch(rb"(['\"])(.*)\1\n", line, re.DOTALL)
    if not found:
        raise ValueError("a string has no quotes, or no end")
    return re.sub(rb"\\(x[0-9a-f]{2}|.|$)", _unescaped, found[2], flags=re.DOTALL)


def _unescaped(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    if len(escape) == 3:
        return bytes.fromhex(escape[1:].decode())
    if escape not in _ESCAPES:
        raise ValueError(f"a string has the escape {escape!r}")
    return _ESCAPES[escape]


def _check_plain(value: object, state: _State, *, steps: int) -> None:
    """Walk a value as its user will: shared parts are met as often as they are shared."""
    if any(isinstance(each, np.ndarray) for each in state.unfilled.values()):
        raise ValueError("an array is never filled")
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if type(item) in (list, tuple, dict):
            inside = [*item, *item.values()] if type(item) is dict else item
            steps -= len(inside)
            if steps < 0 or depth == _DEPTH:
                raise ValueError(f"it unfolds without end, or is nested deeper than {_DEPTH}")
            waiting.extend((each, depth + 1) for each in inside)
        elif type(item) not in _PLAIN and not isinstance(item, np.generic | np.dtype):
            raise ValueError("a function of NumPy stands where a value should")


# What a pickle may name. Each of ours is called with the state and the pickle's own arguments.


def _no_call(*_: object) -> Any:
    raise ValueError("numpy.ndarray is called")


def _reconstruct(state: _State, kind: object, shape: object, code: object) -> np.ndarray:
    if kind is not _no_call:
        raise ValueError("an array of another class than numpy.ndarray is wanted")
    array = np.empty(0, np.uint8)  # BUILD brings the shape
    state.unfilled[id(array)] = array
    return array


def _dtype(state: _State, code: object, align: object = False, copy: object = True) -> Any:
    name = code.decode("ascii", "replace") if isinstance(code, bytes) else code
    if not isinstance(name, str) or name not in _DTYPES:
        raise ValueError(f"dtype {str(name)[:20]!r} is not one of plain numbers")
    # A copy: BUILD changes it, and must not change the one that all of NumPy shares.
    dtype: np.dtype[Any] = np.dtype(name, align=False, copy=True)
    state.unfilled[id(dtype)] = dtype
    return dtype


def _scalar(state: _State, dtype: object, raw: object) -> Any:
    return _array(state, raw, dtype, ())[()]


def _frombuffer(
    state: _State, raw: object, dtype: object, shape: object, *layout: object
) -> np.ndarray:
    order, axes = layout if len(layout) == 2 else (*layout, None)
    if order == "K" and isinstance(axes, tuple):
        return _array(state, raw, dtype, shape).transpose(axes)
    if order not in ("C", "F"):
        raise ValueError("the order of an array's axes is unknown")
    return _array(state, raw, dtype, shape, order=order)


def _encode(state: _State, text: object, encoding: object) -> bytes:
    # Python 3 writes bytes like this in protocols 0 to 2.
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("a string is encoded otherwise than in latin1")
    state.spend(len(text))
    return text.encode("latin1")


def _no_bytes(state: _State) -> bytes:
    return b""


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): _no_call,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}


def _look_up(state: _State, module: object, name: object) -> None:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name is not a string")
    known = module.replace("numpy._core", "numpy.core"), name
    if known not in _NAMES:
        raise ValueError(f"{f'{module}.{name}'[:80]!r} is not admitted")
    state.push(_NAMES[known])


def _array(
    state: _State, raw: Any, dtype: Any, shape: Any, *, order: Literal["C", "F"] = "C"
) -> np.ndarray:
    _check_content(state, raw, dtype, shape)
    return np.ndarray(shape, dtype, bytearray(raw), order=order)


def _check_content(state: _State, raw: Any, dtype: Any, shape: Any) -> None:
    if not isinstance(raw, (bytes, bytearray)) or not isinstance(dtype, np.dtype):
        raise ValueError("an array is made of something else than a dtype and bytes")
    if id(dtype) in state.unfilled:
        raise ValueError("a dtype is used before its byte order is known")
    if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("a shape is not a tuple of integers from 0")
    # NumPy lets 0 x 2**62 x 2**62 pass here, and trips over it later.
    if len(shape) > 32 or math.prod(n or 1 for n in shape) >= 2**48:
        raise ValueError("an array is too large")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"an array has {len(raw)} bytes of {dtype}, but the shape {shape}")
    state.spend(len(raw))


def _reduce(state: _State) -> None:
    arguments, function = state.pop(), state.pop()
    if type(arguments) is not tuple or not any(function is each for each in _NAMES.values()):
        raise ValueError("something else than the admitted functions is called")
    state.push(function(state, *arguments))


def _build(state: _State) -> None:
    content, target = state.pop(), state.top()
    if state.unfilled.pop(id(target), None) is None or type(content) is not tuple:
        raise ValueError("something else than a new array or dtype is given content")
    if isinstance(target, np.dtype):
        _, order, *rest = content
        order = order.decode("ascii") if isinstance(order, bytes) else order
        if (target.itemsize == 1) != (order == "|") or order not in ("<", ">", "|"):
            raise ValueError("the byte order of a dtype is unknown")
        if rest != [None, None, None, -1, -1, 0]:
            raise ValueError("a dtype has fields")
        target.__setstate__((3, order, *rest))  # type: ignore[attr-defined]
    else:
        _, shape, dtype, fortran, raw = content
        _check_content(state, raw, dtype, shape)
        if type(fortran) not in (int, bool):
            raise ValueError("the order of an array's axes is unknown")
        target.__setstate__((1, shape, dtype, bool(fortran), bytes(raw)))


# What each opcode does.


def _put(state: _State, index: int) -> None:
    state.memo[index] = state.top()


def _get(state: _State, index: int) -> None:
    if index not in state.memo:
        raise ValueError(f"number {index} of the memo is missing")
    state.push(state.memo[index])


def _mark(state: _State, _: None) -> None:
    state.below.append(state.stack)
    state.stack = []


def _popped(state: _State, count: int) -> list[Any]:
    return [state.pop() for _ in range(count)][::-1]


def _extend(state: _State, items: list[Any]) -> None:
    state.top(list).extend(items)


def _set(state: _State, items: list[Any]) -> None:
    state.top(dict).update(_dict(items))


def _dict(items: list[Any]) -> dict[Any, Any]:
    # Other keys may be slow to hash: tuples that unfold without end, numbers made to collide.
    if len(items) % 2 or any(type(key) not in (bytes, str) for key in items[::2]):
        raise ValueError("the key of a dict is neither bytes nor str, or has no value")
    return dict(zip(items[::2], items[1::2], strict=True))


def _protocol(state: _State, number: int) -> None:
    if number > 5:
        raise ValueError(f"protocol {number} is unknown")


def _argument(state: _State, argument: object) -> None:
    state.push(argument)


def _python2(state: _State, argument: str) -> None:
    state.push(argument.encode("latin-1"))


_RUN: dict[str, Callable[[_State, Any], None]] = {
    "PROTO": _protocol,
    "FRAME": lambda state, length: None,  # of use to those who read from a stream
    "MARK": _mark,
    "STOP": lambda state, _: None,
    "NONE": lambda state, _: state.push(None),
    "NEWTRUE": lambda state, _: state.push(True),
    "NEWFALSE": lambda state, _: state.push(False),
    **dict.fromkeys(["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"], _argument),
    **dict.fromkeys(["FLOAT", "BINFLOAT"], _argument),
    **dict.fromkeys(["UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"], _argument),
    **dict.fromkeys(["STRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"], _argument),
    "BYTEARRAY8": _argument,
    **dict.fromkeys(["SHORT_BINSTRING", "BINSTRING"], _python2),
    "EMPTY_LIST": lambda state, _: state.push([]),
    "LIST": lambda state, _: state.push(state.pop_to_mark()),
    "APPEND": lambda state, _: _extend(state, _popped(state, 1)),
    "APPENDS": lambda state, _: _extend(state, state.pop_to_mark()),
    "EMPTY_TUPLE": lambda state, _: state.push(()),
    "TUPLE": lambda state, _: state.push(tuple(state.pop_to_mark())),
    "TUPLE1": lambda state, _: state.push(tuple(_popped(state, 1))),
    "TUPLE2": lambda state, _: state.push(tuple(_popped(state, 2))),
    "TUPLE3": lambda state, _: state.push(tuple(_popped(state, 3))),
    "EMPTY_DICT": lambda state, _: state.push({}),
    "DICT": lambda state, _: state.push(_dict(state.pop_to_mark())),
    "SETITEM": lambda state, _: _set(state, _popped(state, 2)),
    "SETITEMS": lambda state, _: _set(state, state.pop_to_mark()),
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT"], _put),
    "MEMOIZE": lambda state, _: _put(state, len(state.memo)),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], _get),
    "GLOBAL": lambda state, names: _look_up(state, *names),
    "STACK_GLOBAL": lambda state, _: _look_up(state, *_popped(state, 2)),
    "REDUCE": lambda state, _: _reduce(state),
    "BUILD": lambda state, _: _build(state),
}
