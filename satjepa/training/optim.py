"""How the weights of a model are stepped: optimisers, learning rates, weight decay, clipping.

    stepping = make_stepping(model, params.train)
    rate = stepping.set_rates(step);
    stepping.clip();
    for optimizer in stepping.optimizers: optimizer.step()

The published variant has ways of its own (`satjepa.training.published_optim`); both follow the
``train`` section.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from satjepa.training.schedules import cosine, warmup_cosine

if TYPE_CHECKING:
    from satjepa.config.sections import Train
    from satjepa.models.joint import JointModel


class Stepping(Protocol):
    """The optimisers of a run, and what holds in a step."""

    optimizers: list[torch.optim.Optimizer]

    def set_rates(self, step: int) -> float:
        """Put learning rates and weight decay of a step (from 0) into the optimisers; returns the
        rate to be logged.
        """

    def clip(self) -> Tensor:
        """Clip the gradients; returns the norm of all of them before, a scalar that is not finite
        if one is not.
        """


def make_stepping(model: JointModel, how: Train) -> Stepping:
    """The stepping of the model's variant. ValueError for Muon in the published one, which has
    AdamW alone.
    """
    if model.params.model.variant == "published":
        from satjepa.training.published_optim import PublishedStepping

        return PublishedStepping(model, how)
    return JointStepping(model, how)


class JointStepping:
    """Of ours: Muon and AdamW, one schedule, the gradients clipped together."""

    def __init__(self, model: nn.Module, how: Train) -> None:
        self.how = how
        self.optimizers = make_optimizers(model, how)
        self.trained = [p for p in model.parameters() if p.requires_grad]

    def set_rates(self, step: int) -> float:
        """As `Stepping` has it: line up, half a cosine down; decay goes from `weight_decay[0]` to
        `weight_decay[1]`.
        """
        how = self.how
        share = warmup_cosine(
            step + 1, how.steps + 1, how.warmup * how.steps, how.lr_ends[0], 1.0, how.lr_ends[1]
        )
        decay = cosine(step + 1, how.steps, *how.weight_decay)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = share * group["peak_lr"]
            group["weight_decay"] = decay if group["decays"] else 0.0
        return share * how.lr

    def clip(self) -> Tensor:
        """As `Stepping` has it."""
        return nn.utils.clip_grad_norm_(self.trained, self.how.grad_clip)


class Muon(torch.optim.Muon):
    """PyTorch's Muon, which orthogonalises in bfloat16; on a CPU without units for it (most
    desktops), where that is a hundred times slower, in float32.

    bfloat16: whether to; None asks the CPU (`has_bfloat16_units`). Same moments, same checkpoints.
    """

    def __init__(self, params: Any, lr: float, bfloat16: bool | None = None) -> None:
        super().__init__(params, lr)
        self.bfloat16 = has_bfloat16_units() if bfloat16 is None else bfloat16

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """As PyTorch has it: momentum (Nesterov), orthogonalised, decay, step."""
        device = self.param_groups[0]["params"][0].device
        if self.bfloat16 or device.type != "cpu":
            super().step(closure)
            return
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                self._move(parameter, group)

    def _move(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
        ahead = parameter.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        update = orthogonalised(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = parameter.shape
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalised(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Newton-Schulz: (m,n) -> U V^T of its singular value decomposition, nearly, in its own type.

    X / |X|, then ``steps`` times a X + (b X X^T + c (X X^T)^2) X, on the side where X X^T is small
    (Jordan et al. 2024).
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def has_bfloat16_units() -> bool:
    """Whether this CPU says that it multiplies bfloat16 matrices in hardware: AVX512-BF16, AMX or
    Arm's; one that PyTorch does not know has none.
    """
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    older = any(getattr(torch.cpu, name)() for name in asked if hasattr(torch.cpu, name))
    return older or any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def parameter_groups(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Trainable parameters in named groups: "hidden", the matrices inside the transformer blocks of
    ours, and "decay", the other weights of linear and convolution layers, decay; "no_decay" (norms,
    biases, mask tokens, learned positions, stream embeddings) does not.
    """
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention)
    weights = {
        id(p)
        for m in model.modules()
        if isinstance(m, layers)
        for p in m.parameters(recurse=False)
        if p.ndim > 1
    }
    groups: dict[str, dict[str, Any]] = {
        name: {"params": [], "decays": name != "no_decay"}
        for name in ("hidden", "decay", "no_decay")
    }
    for name, p in model.named_parameters():
        if p.requires_grad:
            inside = (
                p.ndim == 2
                and (".blocks." in f".{name}" or ".layers." in f".{name}")
                and not name.startswith("backbone.")
            )
            groups["no_decay" if id(p) not in weights else "hidden" if inside else "decay"][
                "params"
            ].append(p)
    return groups


def make_optimizers(model: nn.Module, how: Train) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024: momentum, orthogonalised) for the hidden matrices and AdamW for the
    rest; AdamW for all where `train.muon_lr` is null. Each group keeps its highest learning rate as
    "peak_lr", which a schedule scales.
    """
    groups = parameter_groups(model)
    hidden = [groups.pop("hidden")] if how.muon_lr is not None else []
    kept = [group for group in groups.values() if group["params"]]
    fused = next(model.parameters()).is_cuda or None  # all weights in one kernel
    made = [torch.optim.AdamW(kept, how.lr, fused=fused)]
    made += [Muon(hidden, how.muon_lr)] if hidden and hidden[0]["params"] else []
    for group in (group for optimizer in made for group in optimizer.param_groups):
        group["peak_lr"] = group["lr"]
    return made


@torch.no_grad()
def step_if(optimizers: list[torch.optim.Optimizer], finite: Tensor | None) -> None:
    """Step the optimisers unless ``finite``, () bool on the device, is false; None is as good as
    true.

    Nobody waits for the answer. Fused AdamW then leaves weights and moments as they are; to other
    optimisers the gradients are 0.
    """
    for optimizer in optimizers:
        if finite is not None and optimizer.defaults.get("fused"):
            optimizer.found_inf = (~finite).float()
        elif finite is not None:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                if parameter.grad is not None:
                    parameter.grad.masked_fill_(~finite, 0)
        optimizer.step()


def descend(
    stepping: JointStepping, step: int, loss: Tensor, share: Callable[[], None] = lambda: None
) -> Tensor:
    """One step of a part that is trained by itself down the gradient of its loss; `share` is called
    when that is there. Returns the loss, NaN where it or the gradient is not finite, which does not
    reach the weights.
    """
    stepping.set_rates(step)
    for optimizer in stepping.optimizers:
        optimizer.zero_grad()
    loss.backward()
    share()
    finite = stepping.clip().isfinite()
    step_if(stepping.optimizers, finite)
    return torch.where(finite, loss.detach(), torch.nan)
