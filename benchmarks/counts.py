"""What decides the time at full size, counted without a GPU: floating point operations, operations
that a GPU would be asked for one by one, and memory, of a training step and of a forecast.

    python benchmarks/counts.py

Nothing is computed: the tensors are fake, of the shapes and types that a bfloat16 run has.
"""

from __future__ import annotations

from typing import Any

import torch
from full_size_models import Bench, make_batch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from satjepa.models.drops import Drops
from satjepa.models.joint import JointModel

VIEWS = ("view", "transpose", "permute", "expand", "unsqueeze", "squeeze", "slice", "select",
         "empty", "detach", "split", "alias", "chunk", "unbind", "_reshape",
         "as_strided")  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts operations that move data: each is a kernel or more."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Count and go on."""
        name = func.name().split("::")[1]
        self.count += name != "t" and not name.startswith(VIEWS)
        return func(*args, **(kwargs or {}))


def training_inputs(model: JointModel, size: int, text: int) -> tuple:
    """Batch, noise, noise levels and drops."""
    batch = make_batch(model.params, size, "cpu", text)
    side = model.backbone.latent_size(model.params.data.patch)
    noise = torch.empty(size, 16, side, side)
    batch["latent_tp1"] = torch.empty_like(noise)
    sigma = torch.empty(size)
    return batch, noise, sigma, Drops.all(sigma, False)


def weights_gb(model: JointModel) -> float:
    """Weights, and gradients, two moments and the average of what trains."""
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return (sum(p.nbytes for p in model.parameters()) + 4 * trained) / 1e9


def saved_gb(model: JointModel, size: int, text: int, checkpointing: bool) -> float:
    """What a forward keeps for its gradients, each storage once; not what backward adds."""
    kept: dict[int, int] = {}
    held = []
    own = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            held.append(tensor)
        return tensor

    inputs = training_inputs(model, size, text)
    with (
        model.backbone.training_blocks("off", checkpointing, autocast=True),
        saved_tensors_hooks(pack, lambda x: x),
        torch.autocast("cpu", torch.bfloat16),
    ):
        loss, _ = model(*inputs)
    del loss
    return sum(kept.values()) / 1e9


def training(bench: Bench, name: str) -> None:
    """Print a row of a training step."""
    model = bench.model(name).train()
    inputs = training_inputs(model, 2, bench.text)
    blocks = model.backbone.training_blocks(autocast=name == "ours")
    with FlopCounterMode(display=False) as flops, Launches() as launches, blocks:
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = model(*inputs)
        loss.backward()
    memory = [
        weights_gb(model) + saved_gb(model, size, bench.text, recompute)
        for size, recompute in ((8, False), (64, False), (64, True))
    ]
    print(f"| {name} | {flops.get_total_flops() / 2e12:.2f} | {launches.count} | "
          + " | ".join(f"{gb:.1f}" for gb in memory) + " |", flush=True)  # fmt: skip


def forecast(bench: Bench, name: str, title: str, guidance: bool, fold: bool) -> None:
    """Print a row of one step of the sampler, for one patch, with guidance."""
    model = bench.model(name).eval()
    model.levers = type(model.levers)(guidance, fold, True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        conditions = model.condition(make_batch(model.params, 1, "cpu", bench.text))
    noise = torch.empty(1, 16, 16, 16)
    counted = model.backbone.sampling("off", fold), FlopCounterMode(display=False), Launches()
    with counted[0], counted[1] as flops, counted[2] as launches:
        model.sample(conditions, noise, 1, 1.5)
    print(f"| {name} | {title} | {flops.get_total_flops() / 1e12:.2f} | {launches.count} |",
          flush=True)  # fmt: skip


def main() -> None:
    """Print both tables."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        bench = Bench("cpu", tiny=False)
        bench.build()
        print("| training step | TFLOP a sample | operations | GB at 8 | GB at 64 | GB at 64, "
              "checkpointing |\n|---|---|---|---|---|---|")  # fmt: skip
        for name in ("untrimmed", "unmerged", "ours"):
            training(bench, name)
        print("\n| step of the sampler | way | TFLOP | operations |\n|---|---|---|---|")
        forecast(bench, "untrimmed", "plain", False, False)
        forecast(bench, "ours", "words trimmed, tokens merged", False, False)
        forecast(bench, "ours", "+ guidance in one call", True, False)
        forecast(bench, "ours", "+ LoRA folded", True, True)


if __name__ == "__main__":
    main()
