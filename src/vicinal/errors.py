"""Errors that the user can fix: invalid settings, unreadable files, a full disk."""

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """An error that the user can fix.

    Its message names the field or file, what was expected, what it got, and what to try. The
    command line prints it without a traceback.
    """


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error of any library means that memory ran out.

    Example:
        >>> out_of_memory(RuntimeError("std::bad_alloc")), out_of_memory(ValueError("no"))
        (True, False)
    """
    words = [
        *("bad_alloc", "allocate memory", "failed to map segment", "can't start new thread"),
        *("out of memory", "ALLOC_FAILED"),  # of GPUs, if it is not a torch.OutOfMemoryError
    ]
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def root_cause(error: BaseException) -> str:
    """Return the message of the innermost of several wrapped errors."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error) or type(error).__name__


class TrialError(UserError):
    """A trial failed, for example with a loss of NaN; other trials of the study can continue."""


class StoppedError(UserError):
    """A signal asked to stop; the same command resumes."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message about an unknown name, with the most similar known name and all of them.

    Example:
        >>> unknown("network", "smal-cnn", ["small-cnn", "mlp"])
        "there is no network 'smal-cnn'. Did you mean 'small-cnn'? (available: small-cnn, mlp)"
    """
    names = list(known)
    name = name if len(name) <= 100 else f"{name[:100]}..."
    return f"there is no {what} {name!r}{did_you_mean(name, names)} (available: {', '.join(names)})"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question with the most similar known name, to append to a message; or "".

    Without a similar one, it is the first name with ``name`` as a word, as ``f1`` in ``macro-f1``.

    Example:
        >>> did_you_mean("adamww", ["sgd", "adamw"]), did_you_mean("nothing", ["sgd"])
        (". Did you mean 'adamw'?", '')
        >>> did_you_mean("f1", ["accuracy", "macro-f1"])
        ". Did you mean 'macro-f1'?"
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    near += [one for one in names if name in re.split(r"\W", one)]
    return f". Did you mean {near[0]!r}?" if near else ""
