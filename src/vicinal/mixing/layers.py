"""Mixing at any place of a network."""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vicinal.errors import unknown
from vicinal.mixing.randomness import CPU

if TYPE_CHECKING:
    from vicinal.mixing.plan import CleanAndMixed, Plan
    from vicinal.mixing.policies import Policy

Mix = Callable[[Tensor], Tensor]
Entry = int | str | None


@contextmanager
def mixing_inside(module: nn.Module, mix: Mix, entry: Entry = None) -> Iterator[None]:
    """Pass what ``module`` puts out through ``mix``, once, inside the ``with`` block.

    In eval mode the output passes untouched. ``Plan.inside`` says what is raised when.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"inside needs a module, such as model.layer1, got {module!r}.")
    runs = 0

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        nonlocal runs
        if not module.training:
            runs += 1
            return None
        if _in_backward():  # gradient checkpointing runs it again: the same mixing
            return mixed_entry(module, mix, output, entry)
        runs += 1
        if runs > 1:
            raise RuntimeError(
                f"{type(module).__name__} ran a second time inside one block, but the loss knows "
                "of one mixing only; open a block for each forward pass, and mix at a module that "
                "runs once."
            )
        return mixed_entry(module, mix, output, entry)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if runs == 0:
        raise RuntimeError(
            f"{type(module).__name__} did not run inside the block, so nothing was mixed; run the "
            "model there, and choose a module that its forward pass calls (in a model that was "
            "compiled before, use MixedInside)."
        )


class MixedInside(nn.Module):
    """A model that can be mixed at its input and inside, at a place that is drawn each step.

    Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States"
    (https://arxiv.org/abs/1806.05236), section 2: a layer is drawn for each batch, and mixing
    happens there. The gradient goes back through the mixing to both parents of a blend. Works
    compiled (``torch.compile(mixed, fullgraph=True)``: one compilation for each place, so for more
    than eight raise ``torch._dynamo.config.recompile_limit``), under ``DistributedDataParallel``,
    and with non-reentrant gradient checkpointing. It mixes in train mode only. Policies that draw
    a region need places whose height and width are alike. Save and load ``mixed.model``.

    Args:
        model: any model. Nothing of it is rewritten; its parameters are found under ``model.``.
        policy: what plans are drawn from.
        at: where to mix: names of modules as in ``model.named_modules()``, patterns such as
            ``"layer?"`` or ``"blocks.*"`` (``*`` and ``?`` stop at no dot), and ``"input"``.
        entry: which entry of the output to mix, at modules that put out a tuple, a list or a dict.

    Raises:
        ValueError: if a name or a pattern fits nothing; the nearest names are shown.

    Example:
        >>> from vicinal import MixUp
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> mixed = MixedInside(model, MixUp(alpha=2.0), at=["input", "0", "1"])
        >>> x, y = torch.rand(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
        >>> place, plan = mixed.draw(len(x))
        >>> loss = plan.loss(nn.functional.cross_entropy, mixed(x, plan, at=place), y)
    """

    def __init__(
        self, model: nn.Module, policy: "Policy", *, at: Sequence[str], entry: Entry = None
    ) -> None:
        """Find the places, and hook onto them."""
        super().__init__()
        _check_policy("MixedInside", policy)
        self.model = model
        self.policy = policy
        self.places = matching_places(model, at)
        self._entry = entry
        self._place: str | None = None
        self._mix: Mix | None = None
        self._again: tuple[str, Mix] | None = None
        self._runs = 0
        modules = dict(model.named_modules())
        for place in self.places:
            if place != "input":
                modules[place].register_forward_hook(_Hook(self, place))

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> "tuple[str, Plan | CleanAndMixed]":
        """Draw a place, each with the same chance, then a plan; see ``Policy.draw``."""
        chosen = int(torch.randint(len(self.places), (), generator=generator, device=CPU))
        plan = self.policy.draw(
            size, generator=generator, y=y, features=features, image_size=image_size
        )
        return self.places[chosen], plan

    def forward(
        self, x: Any, plan: "Plan | CleanAndMixed | None" = None, *, at: str = "input"
    ) -> Any:
        """Run the model, mixed by ``plan`` at a place, as ``draw`` hands them out.

        Args:
            x: the model's input; a tensor where it is mixed.
            plan: what to mix by; nothing is mixed without one, or in eval mode.
            at: one of ``places``.

        Raises:
            ValueError: if ``at`` is none of ``places``.
            RuntimeError: if the module there did not run, or ran twice.
        """
        if plan is None or not self.training:
            return self._remembered(self.model(x), None)
        if at not in self.places:
            raise ValueError(f"{unknown('place', at, self.places)}: pass at=, as draw says it.")
        if at == "input":
            return self._remembered(self.model(plan.mix(x)), None)
        self._place, self._mix, self._runs = at, plan.mix, 0
        try:
            output = self.model(x)
            runs = self._runs
        finally:
            self._place = self._mix = None
        if runs != 1:
            raise RuntimeError(
                f"{at} ran {runs} times in one forward pass, but the loss knows of one mixing; mix "
                "at a module that runs once."
            )
        return self._remembered(output, (at, plan.mix))

    def _remembered(self, output: Any, mixing: tuple[str, Mix] | None) -> Any:
        """Return an output whose backward pass begins by having this pass's mixing at hand, for
        where checkpointing computes it again.
        """
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return output

        def on_backward(_gradient: Tensor) -> None:
            self._again = mixing

        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                leaf.register_hook(on_backward)
        return output


class _Hook:
    """What a ``MixedInside`` does after one of its modules; it must not count as a module of it."""

    def __init__(self, owner: MixedInside, place: str) -> None:
        self._owner = owner
        self._place = place

    def __call__(self, module: nn.Module, _args: Any, output: Any) -> Any:
        owner = self._owner
        if owner._mix is not None:
            if owner._place != self._place:
                return None
            owner._runs += 1
            return mixed_entry(module, owner._mix, output, owner._entry)
        # A compiled pass keeps what it needs; and looking at _again would compile anew for it.
        if not torch.compiler.is_compiling() and owner._again is not None and _in_backward():
            place, mix = owner._again
            return mixed_entry(module, mix, output, owner._entry) if place == self._place else None
        return None


class MixUpLayer(nn.Module):
    """A layer that mixes what passes through, and the labels with it.

    The form of the MXNet MixUp layer, put anywhere in a network: ``x, y = layer(x, y)``. In train
    mode integer labels come in and soft labels go out; in eval mode both pass untouched.

    Args:
        policy: what plans are drawn from, from torch's global generator.
        num_classes: for integer labels, their number; None for labels that are blended as they are.

    Example:
        >>> from vicinal import MixUp
        >>> layer = MixUpLayer(MixUp(alpha=0.2, mix_rate=0.7), num_classes=3)
        >>> x, y = layer(torch.rand(4, 2), torch.tensor([0, 1, 2, 0]))
        >>> x.shape, y.shape
        (torch.Size([4, 2]), torch.Size([4, 3]))
    """

    def __init__(self, policy: "Policy", num_classes: int | None = None) -> None:
        """Keep the policy."""
        super().__init__()
        _check_policy("MixUpLayer", policy)
        from vicinal.mixing.policies import RegMixUp

        if isinstance(policy, RegMixUp):
            raise TypeError(
                "MixUpLayer hands on blends and labels, and the weight of RegMixUp would be lost; "
                "draw from it in the training loop, and use the loss of its plan."
            )
        self.policy = policy
        self.num_classes = num_classes

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mix ``(batch, ...)`` and targets ``(batch, ...)``; see ``Plan.mix``, ``Plan.targets``.

        A policy that draws a region takes ``x`` as ``(batch, channels, *sizes)``.
        """
        if not self.training:
            return x, y
        plan = self.policy.draw(len(x), y=y, image_size=x.shape[2:] if x.dim() > 2 else None)
        return plan.mix(x), plan.targets(y, self.num_classes)

    def extra_repr(self) -> str:
        """Say what this layer does."""
        return f"{self.policy}, num_classes={self.num_classes}"


def matching_places(model: nn.Module, at: Sequence[str]) -> list[str]:
    """Return the places that names and patterns stand for, each once, in the order of ``at``.

    Raises:
        ValueError: if one of them fits nothing.

    Example:
        >>> model = nn.ModuleDict({"conv1": nn.ReLU(), "conv2": nn.ReLU(), "head": nn.ReLU()})
        >>> matching_places(model, ["input", "conv?"])
        ['input', 'conv1', 'conv2']
    """
    if isinstance(at, str) or not at or not all(isinstance(one, str) for one in at):
        raise ValueError(f'at needs a list of places, such as ["input", "layer?"]; got {at!r}.')
    names = [name for name, _ in model.named_modules() if name]
    found: list[str] = []
    for pattern in at:
        fitting = ["input"] if pattern == "input" else fnmatch.filter(names, pattern)
        if not fitting:
            raise ValueError(unknown("layer", pattern, ["input", *names]))
        found += [name for name in fitting if name not in found]
    return found


def _check_policy(layer: str, policy: Any) -> None:
    if isinstance(policy, type) or not hasattr(policy, "draw"):
        raise TypeError(f"{layer} needs a policy such as MixUp(alpha=0.2), got {policy!r}.")


def mixed_entry(module: nn.Module, mix: Mix, output: Any, entry: Entry) -> Any:
    """Return what a module puts out, with the tensor in it mixed."""
    if isinstance(output, Tensor) and entry is None:
        return mix(output)
    name, kind = type(module).__name__, type(output).__name__
    if entry is None:
        raise TypeError(
            f"mixing inside needs a module that puts out one tensor, {name} puts out a {kind}; "
            "say which entry of it to mix, as entry=0, or choose a module before or after it."
        )
    try:
        part = output[entry]
    except (KeyError, IndexError, TypeError) as error:
        raise TypeError(f"{name} puts out a {kind} that has no entry {entry!r}.") from error
    if not isinstance(part, Tensor):
        raise TypeError(f"entry {entry!r} of what {name} puts out is no tensor: {type(part)}.")
    if isinstance(output, tuple):
        parts = [mix(part) if k == entry % len(output) else one for k, one in enumerate(output)]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    changed = output.copy()
    changed[entry] = mix(part)
    return changed


def _in_backward() -> bool:
    """Say whether autograd is running a backward pass on this thread."""
    return torch._C._current_graph_task_id() != -1
