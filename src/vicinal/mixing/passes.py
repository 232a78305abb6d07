"""One forward pass that is mixed at one module, and its recomputation by gradient checkpointing."""

import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Mix = Callable[[Tensor], Tensor]
Entry = int | str | None

_MARKS = "vicinal.passes"
"""Key in the metadata of an autograd node: the mixed passes that the node belongs to."""

_Node = Any  # torch.autograd.graph.Node, whose hints declare the dict metadata as a method

_REGISTERING = threading.Lock()
"""PyTorch numbers hooks without a lock, so two threads could give theirs the same number."""


class Pass:
    """A forward pass in which ``mix`` is applied to the output of ``module``.

    The module has a hook only while the pass runs, except under gradient checkpointing. Then the
    module runs again during the backward pass, and must be mixed again if and only if that
    recomputation belongs to this pass: ``finish`` marks the autograd nodes of the pass, and the
    hook stays until the last of them is freed. The node that autograd is executing identifies the
    pass that is recomputed, even after other passes and in other threads.

    Args:
        module: the module whose output is mixed.
        mix: applied to the output.
        entry: the entry of the output to mix.
        name: the name of the module, for errors.
        owner: the object that starts the pass, if a checkpoint around it can start it again.
    """

    def __init__(
        self, module: nn.Module, mix: Mix, entry: Entry, name: str, owner: object = None
    ) -> None:
        """Add the hook to the module."""
        self.name = name
        self.owner = owner
        self.runs = 0
        self.checkpointed = False
        self.recomputed = False
        self._module, self._mix, self._entry = module, mix, entry
        self._running = True
        self._reentrant = False
        self._on_cpu = True
        self._thread = threading.get_ident()
        self._node: _Node = torch._C._current_autograd_node()
        self._surroundings = _surroundings()
        self._replaced = 0
        self._replaces = [] if owner is None or self._node is None else self._earlier(self._node)
        for earlier in self._replaces:
            earlier._replaced += 1
        self._first = self._last = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        with _REGISTERING:
            handle = module.register_forward_hook(_Hook(self))
        self._remove = weakref.finalize(self, handle.remove)
        self._remove.atexit = False

    def finish(self, output: Any = None) -> None:
        """Remove the hook; if a recomputation needs it, keep it while ``output`` has nodes.

        Raises:
            RuntimeError: if it is needed and no tensor is found in ``output``.
        """
        self._running = False
        self._node = None
        while self._replaces:
            self._replaces.pop()._replaced -= 1
        self._last = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        tensors = list(_tensors(output)) if self.checkpointed else []
        todo: list[_Node] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
        if not todo:
            self._remove()
        if self.checkpointed and output is not None and not tensors:
            raise RuntimeError(
                f"{self.name} runs under gradient checkpointing, so the output of the model has to "
                f"contain tensors, got {type(output).__name__}. Return tensors, or containers of "
                "them."
            )
        while todo:
            node = todo.pop()
            # Gradient accumulators, which have no next functions, outlive the pass under DDP.
            if node.next_functions and node._sequence_nr() >= self._first:
                marks = node.metadata.setdefault(_MARKS, [])
                if self not in marks:
                    marks.append(self)
                    todo += [other for other, _ in node.next_functions if other is not None]

    def after(self, module: nn.Module, output: Any) -> Any:
        """Return the output of the module, mixed if this run of it belongs to this pass."""
        if module is not self._module:  # a copy of the module, with its hooks
            return None
        node = torch._C._current_autograd_node()
        if self._running and node is self._node and threading.get_ident() == self._thread:
            self.runs += 1
            if self.runs > 1:
                raise RuntimeError(
                    f"{self.name} ran a second time in one forward pass, but can be mixed only "
                    "once. Use a new `with` block or call for each forward pass, and mix at a "
                    "module that runs once in it."
                )
            surroundings = _surroundings()
            self.checkpointed = surroundings != self._surroundings
            self._reentrant = surroundings[0] and not self._surroundings[0]
            output = mixed_entry(module, self._mix, output, self._entry)
            part = output if self._entry is None else output[self._entry]
            self._on_cpu = part.device.type == "cpu"
            return output
        if node is None or self._replaced or not self._made(node):
            return None
        inside_function, saving = _surroundings()
        if inside_function or (self._reentrant and saving is not None):
            raise RuntimeError(
                f"{self.name} is inside nested gradient checkpoints, one of them reentrant, where "
                "a second recomputation would not be mixed. Pass use_reentrant=False to "
                "torch.utils.checkpoint."
            )
        self.recomputed = True
        return mixed_entry(module, self._mix, output, self._entry)

    def _earlier(self, node: _Node) -> "list[Pass]":
        """Return the passes that this one repeats because a checkpoint around all of it does."""
        return [one for one in node.metadata.get(_MARKS, ()) if one.owner is self.owner]

    def _made(self, node: _Node) -> bool:
        """Return whether a node that autograd executes belongs to this pass."""
        marks = node.metadata.get(_MARKS, ())
        if self in marks:
            return True
        # Each thread numbers its nodes. On a CPU, backward runs in the thread that calls it.
        comparable = self._thread == threading.get_ident() or not self._on_cpu
        mine = comparable and self._first <= node._sequence_nr()
        if self._running:  # backward is called inside the block, when nothing is marked yet
            return mine and (self.owner is None or not marks)
        if mine and not marks and node._sequence_nr() < self._last:
            raise RuntimeError(
                f"{self.name}: gradient checkpointing runs this module again for a gradient that "
                "does not come from the output of the mixed forward pass, so it is not known "
                "whether to mix. Return all tensors that the loss uses from the model's forward."
            )
        return False


class _Hook:
    """The hook of a pass. It has only a weak reference to the pass, and copies of it do nothing."""

    def __init__(self, owner: Pass | None = None) -> None:
        self._owner = (lambda: None) if owner is None else weakref.ref(owner)
        self._after = _uncompiled_after() if "torch._dynamo" in sys.modules else Pass.after

    def __call__(self, module: nn.Module, _args: Any, output: Any) -> Any:
        owner = self._owner()
        return None if owner is None else self._after(owner, module, output)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Hook, ()


@functools.cache
def _uncompiled_after() -> Callable[[Pass, nn.Module, Any], Any]:
    """Return ``Pass.after`` for modules that were compiled separately; it cannot be traced.

    A decorator would import the compiler with the package.
    """
    return torch.compiler.disable(Pass.after)  # type: ignore[no-any-return]


@contextmanager
def mixing_inside(module: nn.Module, mix: Mix, entry: Entry = None) -> Iterator[None]:
    """Mix the output of ``module`` once, inside the ``with`` block; see ``Plan.inside``."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"inside: expected a module, such as model.layer1, got {module!r}.")
    mixed = Pass(module, mix, entry, type(module).__name__)
    try:
        yield
    finally:
        mixed.finish()
    if mixed.runs == 0:
        raise RuntimeError(
            f"{mixed.name} did not run inside the block, so nothing was mixed. Run the model "
            "there, and choose a module that its forward pass calls (if the model was compiled "
            "before, use MixedInside)."
        )
    if mixed.checkpointed and not mixed.recomputed:
        raise RuntimeError(
            f"{mixed.name} runs under gradient checkpointing (or other hooks for saved tensors), "
            "and would run again without mixing after the block. Call backward inside the block, "
            "or use MixedInside."
        )


def mixed_entry(module: nn.Module, mix: Mix, output: Any, entry: Entry) -> Any:
    """Return the output of a module with its tensor, or one of its entries, mixed."""
    if isinstance(output, Tensor) and entry is None:
        return mix(output)
    name, kind = type(module).__name__, type(output).__name__
    if entry is None:
        raise TypeError(
            f"{name}: expected a module whose output is one tensor, got a {kind}. Pass the entry "
            "to mix, such as entry=0, or choose a module before or after it."
        )
    try:
        part = output[entry]
    except (KeyError, IndexError, TypeError) as error:
        raise TypeError(
            f"entry: expected an entry of the {kind} from {name}, got {entry!r}."
        ) from error
    if not isinstance(part, Tensor):
        raise TypeError(f"entry {entry!r} of {name}: expected a tensor, got {type(part)}.")
    if isinstance(output, tuple):
        parts = [mix(part) if k == entry % len(output) else one for k, one in enumerate(output)]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    changed = output.copy()
    if isinstance(output, Mapping) and isinstance(entry, int) and entry not in output:
        entry = list(output)[entry]  # outputs of transformers can be indexed by number, too
    changed[entry] = mix(part)
    return changed


def checkpointed() -> bool:
    """Return whether gradient checkpointing changes what autograd saves of the running code."""
    return _surroundings() != (False, None)


def _surroundings() -> tuple[bool, Any]:
    """Return the state that gradient checkpointing changes: reentrant checkpointing runs code in an
    autograd function; the other kind replaces how tensors are saved for backward.
    """
    inside_function = not (torch._C._is_fwd_grad_enabled() or torch.is_inference_mode_enabled())
    return inside_function, torch._C._autograd._top_saved_tensors_default_hooks(False)


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yield all tensors in the output of a model."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (list, tuple, set)):
        for value in output:
            yield from _tensors(value)
    elif hasattr(output, "__dict__") and not isinstance(output, (type, nn.Module)):
        yield from _tensors(vars(output))
