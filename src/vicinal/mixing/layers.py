"""Mixing at any layer of a network."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vicinal.errors import unknown
from vicinal.mixing.clean_and_mixed import CleanAndMixed
from vicinal.mixing.passes import Entry, Pass, checkpointed, mixed_entry
from vicinal.mixing.plan import Plan
from vicinal.mixing.policies import Policy, RegMixUp
from vicinal.mixing.randomness import CPU
from vicinal.mixing.sampling import check_policy


class MixedInside(nn.Module):
    """A model that can be mixed at its input or at a layer, which is drawn for each batch.

    Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States"
    (https://arxiv.org/abs/1806.05236), section 2: a layer is drawn for each batch, and its output
    is mixed. The gradient flows through the mixing to both parents of a blend.

    A call with a plan is mixed, in train mode and in eval mode, even if layers are frozen; a call
    without a plan is not. So the output always fits ``plan.loss``. To evaluate, pass no plan.

    Each call is mixed by its own plan, even with several threads, several wrappers of one model,
    several forward passes before one backward pass, or gradient checkpointing of either kind, whose
    recomputation is mixed too. ``DistributedDataParallel``, FSDP and Fabric can wrap it in any
    precision. The model has hooks only while a pass needs them, except after compiling
    (``torch.compile(mixed, fullgraph=True)``), where hooks stay. They have no effect when the model
    itself is called, and ``remove_hooks`` removes them. PyTorch compiles once for each layer, so
    for more than eight layers raise ``torch._dynamo.config.recompile_limit``. Compiled code raises
    an error at a layer inside a gradient checkpoint.

    If the policy draws regions, the mixed tensor must have the height and width for which the plan
    was drawn (for ``ColumnCutMix``, the number of features). Save and load ``mixed.model``.

    Args:
        model: any model. Its modules and parameters are not changed; in the ``state_dict`` of the
            wrapper, their names begin with ``model.``.
        policy: draws the plans.
        at: where to mix: names of modules as in ``model.named_modules()``, patterns such as
            ``"layer?"`` or ``"blocks.?"`` (``*`` and ``?`` match dots too), and ``"input"``. All
            of an example has to pass through the module: if a branch goes past it, as in a residual
            block, the example is mixed only in part.
        entry: the entry of the output to mix, if the output is a tuple, a list or a dict.

    Raises:
        ValueError: if a name or a pattern matches no layer; the error has the nearest names.

    Example:
        >>> from vicinal import MixUp
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> mixed = MixedInside(model, MixUp(alpha=2.0), at=["input", "0", "1"])
        >>> x, y = torch.rand(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
        >>> layer, plan = mixed.draw(len(x))
        >>> loss = plan.loss(nn.functional.cross_entropy, mixed(x, plan, at=layer), y)
    """

    def __init__(
        self, model: nn.Module, policy: Policy, *, at: Sequence[str], entry: Entry = None
    ) -> None:
        """Find the layers."""
        super().__init__()
        check_policy("MixedInside", policy)
        self.model = model
        self.policy = policy
        self.layers = matching_layers(model, at)
        self._entry = entry
        self._compiled = _Compiled(entry)
        self._handles: list[RemovableHandle] = []

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> tuple[str, Plan | CleanAndMixed]:
        """Draw a layer, all equally likely, then a plan; see ``Policy.draw``."""
        chosen = int(torch.randint(len(self.layers), (), generator=generator, device=CPU))
        plan = self.policy.draw(
            size, generator=generator, y=y, features=features, image_size=image_size
        )
        return self.layers[chosen], plan

    def forward(
        self,
        x: Any = None,
        plan: Plan | CleanAndMixed | None = None,
        *args: Any,
        at: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the model, mixed by ``plan`` at a layer, as ``draw`` returns them.

        Args:
            x: the model's first argument, a tensor if it is mixed; may be omitted if the model
                takes keyword arguments only.
            plan: mixes; without it, nothing is mixed.
            args: further positional arguments of the model, not mixed.
            at: the layer; with a plan, it can be omitted if there is only one.
            kwargs: keyword arguments of the model, not mixed.

        Raises:
            TypeError: if ``plan`` is not a plan.
            ValueError: if ``at`` is not one of ``layers``, is missing, or is given without a plan.
            RuntimeError: if the module did not run, or ran twice.
        """
        if torch.compiler.is_compiling():
            self._add_hooks()
        if plan is None:
            if at is not None:
                raise ValueError(
                    f"MixedInside: expected a plan for at={at!r}, got none, so nothing would be "
                    "mixed. Pass the plan that draw returned, or leave out at=."
                )
            return self.model(*_positional(x, args), **kwargs)
        if not hasattr(plan, "mix"):
            raise TypeError(
                f"MixedInside: expected a plan or None as the second argument, got "
                f"{type(plan).__name__}. Pass further arguments of the model after it or by name."
            )
        if at is None and len(self.layers) == 1:
            (at,) = self.layers
        if at is None:
            raise ValueError(
                f"MixedInside: expected at= as returned by draw, one of {', '.join(self.layers)}, "
                "got none."
            )
        if at not in self.layers:
            raise ValueError(f"{unknown('layer', at, self.layers)}. Pass at= as returned by draw.")
        if at == "input":
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"MixedInside: expected a tensor as the first argument, to mix the input, got "
                    f"{type(x).__name__}. Choose another layer."
                )
            return self.model(plan.mix(x), *args, **kwargs)
        if torch.compiler.is_compiling():
            return self._run_compiled(plan, at, _positional(x, args), kwargs)
        mixed = Pass(self.model.get_submodule(at), plan.mix, self._entry, at, owner=self._compiled)
        output = None
        try:
            output = self.model(*_positional(x, args), **kwargs)
        finally:
            mixed.finish(output)
        _check_ran(at, mixed.runs)
        return output

    def remove_hooks(self) -> None:
        """Remove the hooks that compiling left on the model, for example to script or pickle it.

        When compiled code is called again, it is compiled again, which adds the hooks again.
        """
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _run_compiled(
        self, plan: Plan | CleanAndMixed, at: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run the model while it is compiled, when hooks can be called but not registered."""
        now = self._compiled
        if now.plan is not None:  # only possible in uncompiled code after a graph break
            raise RuntimeError(
                "MixedInside: expected one forward pass at a time, since the compiled model has "
                "graph breaks, got a second one. Wait until the first one ends."
            )
        now.plan, now.layer, now.runs = plan, at, 0
        try:
            output = self.model(*args, **kwargs)
            alone = now.plan is plan
        finally:
            now.plan = None
        if not alone:
            raise RuntimeError(
                "MixedInside: expected one thread at a time, since the compiled network has graph "
                "breaks, got two. Run it in one thread, or find the breaks with fullgraph=True."
            )
        _check_ran(at, now.runs)
        return output

    def _add_hooks(self) -> None:
        """Add a hook to each layer, before the compiler traces it."""
        if self._handles:
            return
        for layer in self.layers:
            if layer != "input":
                hook = _CompiledHook(self._compiled, layer)
                module = self.model.get_submodule(layer)
                self._handles.append(module.register_forward_hook(hook))

    # The compiler calls it and does not trace it. torch.compiler.assume_constant_result does the
    # same, but imports the compiler with the package.
    _add_hooks._dynamo_marked_constant = True  # type: ignore[attr-defined]


class _Compiled:
    """The plan and the layer of the running pass of a compiled ``MixedInside``."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.plan: Plan | CleanAndMixed | None = None
        self.layer: str | None = None
        self.runs = 0


class _CompiledHook:
    """A hook of a compiled ``MixedInside``."""

    def __init__(self, now: _Compiled, layer: str) -> None:
        self._now = now
        self._layer = layer

    def __call__(self, module: nn.Module, _args: Any, output: Any) -> Any:
        now = self._now
        if now.plan is None or now.layer != self._layer:
            return None
        if not torch.compiler.is_compiling() and checkpointed():
            raise RuntimeError(
                f"{self._layer} runs under gradient checkpointing, where a compiled MixedInside "
                "cannot mix. Do not compile, or mix outside of the checkpoint."
            )
        now.runs += 1
        return mixed_entry(module, now.plan.mix, output, now.entry)


_REGMIXUP = (
    "MixUpLayer: expected a policy other than RegMixUp, whose weight would be lost. Draw from it "
    "in the training loop, and use the loss of its plan."
)


class MixUpLayer(nn.Module):
    """A layer that mixes its input and the labels.

    Like the MXNet MixUp layer, it can be anywhere in a network: ``x, y = layer(x, y)``. In train
    mode it turns integer labels into soft labels; in eval mode it changes nothing.

    Args:
        policy: draws the plans, with torch's global generator.
        num_classes: the number of classes, for integer labels; None for other labels.

    Example:
        >>> from vicinal import MixUp
        >>> layer = MixUpLayer(MixUp(alpha=0.2, mix_rate=0.7), num_classes=3)
        >>> x, y = layer(torch.rand(4, 2), torch.tensor([0, 1, 2, 0]))
        >>> x.shape, y.shape
        (torch.Size([4, 2]), torch.Size([4, 3]))
    """

    def __init__(self, policy: Policy, num_classes: int | None = None) -> None:
        """Keep the policy."""
        super().__init__()
        check_policy("MixUpLayer", policy)
        if isinstance(policy, RegMixUp):
            raise TypeError(_REGMIXUP)
        self.policy = policy
        self.num_classes = num_classes

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mix inputs and targets, each ``(batch, ...)``; see ``Plan.mix`` and ``Plan.targets``.

        A policy that draws a region takes ``x`` as ``(batch, channels, *sizes)`` or ``(batch,
        features)``.
        """
        if not self.training:
            return x, y
        size = x.shape[2:] or x.shape[1:]
        plan = self.policy.draw(len(x), y=y, features=x, image_size=size)
        if isinstance(plan, CleanAndMixed):  # of a policy inside another
            raise TypeError(_REGMIXUP)
        return plan.mix(x), plan.targets(y, self.num_classes)

    def extra_repr(self) -> str:
        """Return the settings of this layer."""
        return f"{self.policy}, num_classes={self.num_classes}"


def matching_layers(model: nn.Module, at: Sequence[str]) -> list[str]:
    """Return the layers that match names and patterns, each once, in the order of ``at``.

    Raises:
        ValueError: if one of them matches no layer.

    Example:
        >>> model = nn.ModuleDict({"conv1": nn.ReLU(), "conv2": nn.ReLU(), "head": nn.ReLU()})
        >>> matching_layers(model, ["input", "conv?"])
        ['input', 'conv1', 'conv2']
    """
    if isinstance(at, str) or not at or not all(isinstance(one, str) for one in at):
        raise ValueError(f'at: expected a list of layers, such as ["input", "layer?"], got {at!r}.')
    names = [name for name, _ in model.named_modules() if name]
    found: list[str] = []
    for pattern in at:
        fitting = ["input"] if pattern == "input" else fnmatch.filter(names, pattern)
        if "input" in names and "input" in fitting:
            raise ValueError(
                'at: "input" is the input of the model, but the model has a module of that name '
                f"too (of {pattern!r}). Rename the module, or mix with plan.inside(module)."
            )
        if not fitting:
            raise ValueError(unknown("layer", pattern, ["input", *names]))
        found += [name for name in fitting if name not in found]
    return found


def _positional(x: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return () if x is None and not args else (x, *args)


def _check_ran(layer: str, runs: int) -> None:
    if runs != 1:
        raise RuntimeError(
            f"{layer} ran {runs} times in one forward pass, but has to be mixed once. Mix at a "
            "module that runs once. If a part of the model was compiled without MixedInside, call "
            "torch.compiler.reset() and compile the MixedInside."
        )
