"""The demo on the CPU, plain against quick, in one run: a scene's forecast and a training step.

    python benchmarks/cpu.py [--side 512] [--samples 8] [--times 3]

Plain: both halves of the guidance one after the other, LoRA beside the frozen weights, samples one
by one, captions padded to `captions.max_length`. Quick: what `satjepa` does, and what it does with
`sample.compile` and `train.compile` on, which need a C++ compiler and half a minute once. Times are
taken alternately and medians shown, of the wall clock: for numbers that hold, nothing else should
run. Muon is timed in bfloat16 and in float32, whatever the CPU has units for.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from satjepa.assemble import build_model, embedder, load_text_encoders
from satjepa.captions.rules import caption
from satjepa.config import Params, load_params
from satjepa.data.stack import Stack
from satjepa.forecast import blended, tiles
from satjepa.models.drops import Chances, sample_drops
from satjepa.models.joint import JointModel
from satjepa.models.sampling import Levers
from satjepa.training.advance import advance
from satjepa.training.optim import Muon, has_bfloat16_units, make_stepping, step_if

PLAIN = Levers(guidance=False, fold=False, together=False)


def alternately(ways: dict[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """Median seconds of each way, taken in turns, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(times + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: sorted(taken)[len(taken) // 2] for name, taken in seconds.items()}


def scene(side: int, patch: int) -> Stack:
    """Three years of smooth random land."""
    generator = np.random.default_rng(0)
    coarse = generator.random((3, 3, side // 16, side // 16)).astype(np.float32)
    rgb = coarse.repeat(16, 2).repeat(16, 3)
    valid = np.ones((3, side, side), bool)
    return Stack(rgb=rgb, valid=valid, years=(2022, 2021, 2020), white=1.0, offset=0.0, factor=1.0,
                 saturated=0.0)  # fmt: skip


def opened(model: JointModel) -> JointModel:
    """The model with its zero layers opened, as after training."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(0, 0.01)
    return model


def lengths_of(params: Params, stack: Stack) -> tuple[int, int, int]:
    """Lengths of the captions of a scene's tiles, rounded up to 8."""
    encoders = load_text_encoders(params)
    patch = params.data.patch
    longest = [8, 8, 8]
    for y in range(0, stack.rgb.shape[-1], patch):
        three = caption(stack.rgb[0, :, y : y + patch, :patch], None, encoding="display")
        mask = encoders.tokenize(list(three), params.captions.max_length)["mask"]
        longest = [max(a, -(-int(n) // 8) * 8) for a, n in zip(longest, mask.sum(1), strict=True)]
    return tuple(longest)


def forecasts(
    model: JointModel, trimmed: JointModel, stack: Stack, samples: int, times: int
) -> None:
    """Print the times of a scene's forecast, plain and quick, and how far they are apart."""
    params = model.params
    patch = params.data.patch
    boxes = tiles(*stack.valid.shape[1:], patch, patch // 4)
    embed = embedder(model)
    results = {}

    def forecast(name: str, levers: Levers, model: JointModel = model) -> None:
        model.levers = levers
        model = model.with_sampling(compile="on" if name == "compiled" else "off")
        options = {"history": params.data.history, "embed": embed, "samples": samples}
        results[name] = blended(stack, model, boxes, **options)

    ways = {
        "plain": lambda: forecast("plain", PLAIN),
        "guidance in one call": lambda: forecast("guidance", replace(PLAIN, guidance=True)),
        "LoRA folded": lambda: forecast("folded", replace(PLAIN, fold=True)),
        "samples together": lambda: forecast("together", replace(PLAIN, together=True)),
        "all of these": lambda: forecast("quick", Levers()),
        "all, and trimmed captions": lambda: forecast("trimmed", Levers(), trimmed),
        "all, trimmed, compiled": lambda: forecast("compiled", Levers(), trimmed),
    }
    seconds = alternately(ways, times)
    side = stack.rgb.shape[-1]
    for name, taken in seconds.items():
        print(f"| forecast of {side}x{side}, {samples} samples, {len(boxes)} tiles | {name} | "
              f"{taken:.2f} s | {seconds['plain'] / taken:.2f} |")  # fmt: skip
    for name, reference in (("quick", "plain"), ("compiled", "trimmed")):
        pairs = zip(results[reference], results[name], strict=True)
        mean, spread = (np.abs(a - b).max() for a, b in pairs)
        print(f"\n{name} against {reference}: mean and spread differ by at most {mean:.1e} and "
              f"{spread:.1e}")  # fmt: skip
    print(flush=True)


def training_batch(params: Params, text: int, pooled: int) -> dict[str, Any]:
    """Random samples of the demo's shapes, their latents stored."""
    size = params.train.batch
    side = params.data.patch
    length = params.captions.max_length
    ok = torch.ones(size, 1, side, side, dtype=torch.bool)

    def words() -> dict[str, torch.Tensor]:
        mask = (torch.arange(length) < 40).expand(size, 3, length)
        hidden = torch.randn(size, 3, length, text) * mask[..., None]
        return {"hidden": hidden, "mask": mask, "pooled": torch.randn(size, 3, pooled)}

    return {
        "rgb_t": torch.rand(size, 3, side, side), "rgb_tp1": torch.rand(size, 3, side, side),
        "valid_t": ok, "valid_tp1": ok, "emb_valid": ok,
        "emb_tp1": torch.randn(size, 64, side, side),
        "history": torch.rand(size, params.data.history, 3, side, side),
        "history_valid": torch.ones(size, params.data.history, dtype=torch.bool),
        "latent_tp1": torch.randn(size, 16, side // 8, side // 8),
        "text_t": words(), "text_tp1": words(), "meta": [{}] * size,
    }  # fmt: skip


def training(model: JointModel, trimmed: JointModel, times: int) -> None:
    """Print the times of a training step with captions as they were padded, and trimmed, and with
    Muon in bfloat16 and in float32.
    """
    batch = training_batch(model.params, model.backbone.joint_dim, model.backbone.pooled_dim)
    padded, short = Steps(model, batch), Steps(trimmed, batch)
    ways = {
        "captions padded": lambda: padded.step(has_bfloat16_units()),
        "captions trimmed": lambda: short.step(has_bfloat16_units()),
        "captions trimmed, blocks compiled": lambda: short.compiled_step(has_bfloat16_units()),
        "trimmed, Muon in bfloat16": lambda: short.step(True),
        "trimmed, Muon in float32": lambda: short.step(False),
        "Muon alone, bfloat16": lambda: short.muon_alone(True),
        "Muon alone, float32": lambda: short.muon_alone(False),
    }
    seconds = alternately(ways, times)
    for name, taken in seconds.items():
        print(f"| training step of {model.params.train.batch} | {name} | {1000 * taken:.0f} ms | "
              f"{seconds['captions padded'] / taken:.2f} |")  # fmt: skip
    print(f"\nbfloat16 units, as PyTorch says: {has_bfloat16_units()}", flush=True)


class Steps:
    """Training steps of a model on one batch, all losses at once."""

    def __init__(self, model: JointModel, batch: dict[str, Any]) -> None:
        noise = torch.randn_like(batch["latent_tp1"])
        sigma = torch.rand(len(noise)).clamp(0.01, 0.99)
        self.model = model.train()
        self.inputs = (batch, noise, sigma, sample_drops(len(noise), Chances(0.1, 0.1)))
        self.stepping = make_stepping(model, model.params.train)
        optimizers = self.stepping.optimizers
        (self.muon,) = (optimizer for optimizer in optimizers if isinstance(optimizer, Muon))

    def step(self, bfloat16: bool) -> None:
        """A whole step, as `satjepa.training.loop` makes it."""
        self.muon.bfloat16 = bfloat16
        advance(self.model, self.model, self.inputs)
        self.stepping.clip()
        self.stepping.set_rates(0)
        step_if(self.stepping.optimizers, None)
        self.model.update_target(0.99)
        self.model.average_weights(0.99)

    def compiled_step(self, bfloat16: bool) -> None:
        """The same with `train.compile: on`."""
        with self.model.backbone.training_blocks("on"):
            self.step(bfloat16)

    def muon_alone(self, bfloat16: bool) -> None:
        """Only Muon's part of it."""
        self.muon.bfloat16 = bfloat16
        self.muon.step()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512, help="of the scene, pixels")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    params = load_params()
    stack = scene(args.side, params.data.patch)
    lengths = lengths_of(params, stack)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch "
          f"{torch.__version__}; lengths {lengths} of {params.captions.max_length}\n")  # fmt: skip
    print("| what | way | time | ratio |\n|---|---|---|---|")
    model = opened(build_model(params)).eval()
    short = load_params(**{"captions.lengths": list(lengths)})
    trimmed = opened(build_model(short))
    forecasts(model, trimmed.eval(), stack, args.samples, args.times)
    training(model, trimmed, args.times)


if __name__ == "__main__":
    main()
