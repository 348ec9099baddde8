"""Everything that `full_size.py --all` measures, in order of importance, within a time limit.

Each case is a row of a CSV, written as soon as it is known, and of a Markdown table printed at the
end (and whenever the limit ends it). A case that fails is a row that says why; the next one begins.
"""

from __future__ import annotations

import csv
import gc
import platform
import re
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from full_size_models import Bench, make_batch, tflop_of_a_sample
from torch import Tensor

from satjepa.models.drops import Chances, sample_drops
from satjepa.models.joint import JointModel
from satjepa.models.sampling import Levers, RowSizes
from satjepa.training.advance import GraphedAdvance, advance
from satjepa.training.optim import make_stepping, step_if

COLUMNS = ("case", "batch", "levers", "ms", "images/s", "peak GB", "TFLOP a sample",
           "share of matrix rate", "note")  # fmt: skip
PLAIN = Levers(guidance=False, fold=False, together=False)


class Table:
    """Rows of results: printed and written as they come."""

    def __init__(self, folder: Path, about: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.about = about
        self.rows: list[dict[str, str]] = []
        self.write()

    def add(self, **values: Any) -> None:
        """One row; numbers are rounded to what they are worth."""
        row = {name.replace("_", " "): _shown(value) for name, value in values.items()}
        row = {column: row.get(column, "") for column in COLUMNS}
        self.rows.append(row)
        print(" | ".join(value for value in row.values() if value), flush=True)
        self.write()

    def write(self) -> None:
        """CSV and Markdown, whole."""
        with open(self.folder / "full_size.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, [*COLUMNS, *self.about])
            writer.writeheader()
            writer.writerows(row | self.about for row in self.rows)
        (self.folder / "full_size.md").write_text(self.markdown())

    def markdown(self) -> str:
        """Machine and versions, then the table."""
        head = "\n".join(f"* {name}: {value}" for name, value in self.about.items())
        lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
        lines += [f"| {' | '.join(row.values())} |" for row in self.rows]
        return f"{head}\n\n" + "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if value >= 100 else f"{value:.3g}"
    return str(value)


def machine(device: str) -> dict[str, str]:
    """What the numbers depend on."""
    import diffusers
    import peft

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    return {
        "device": name, "torch": torch.__version__, "CUDA": str(torch.version.cuda),
        "python": platform.python_version(), "diffusers": diffusers.__version__,
        "peft": peft.__version__, "threads": str(torch.get_num_threads()),
    }  # fmt: skip


class Clock:
    """Seconds since the start, and whether a case still fits before the limit."""

    def __init__(self, table: Table, limit: float, device: str) -> None:
        self.table = table
        self.limit = limit
        self.device = device
        self.began = time.perf_counter()
        self.left_out: list[str] = []

    def run(self, name: str, seconds: float, case: Callable[[], None]) -> None:
        """Run a case that should take so long, if it fits; its failure is a row."""
        gone = time.perf_counter() - self.began
        if gone + seconds > self.limit:
            self.left_out.append(name)
            print(f"[{gone:.0f} s] left out: {name}, which takes {seconds:.0f} s", flush=True)
            return
        print(f"[{gone:.0f} s] {name}", flush=True)
        try:
            case()
        except Exception as error:
            traceback.print_exc()
            reason = " ".join(str(error).split())[:120].replace("|", "/")
            self.table.add(case=name, note=f"failed: {type(error).__name__}: {reason}")
        free(self.device)


def free(device: str) -> None:
    """Give back what nobody holds."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def now(device: str) -> float:
    """Seconds, when the device has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(function: Callable[[], Any], device: str, times: int) -> float:
    """Median of the seconds that a function takes."""
    seconds = []
    for _ in range(times):
        start = now(device)
        function()
        seconds.append(now(device) - start)
    return sorted(seconds)[len(seconds) // 2]


def peak_gb(device: str) -> float | str:
    """GB allocated at the peak since `free`, on CUDA."""
    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else ""


def matrix_rate(bench: Bench, table: Table) -> None:
    """TFLOP/s of a bfloat16 matrix product, and TB/s of a copy."""
    side = 512 if bench.tiny else 8192
    a, b = torch.randn(2, side, side, device=bench.device, dtype=torch.bfloat16)
    timed(lambda: a @ b, bench.device, 5)
    seconds = timed(lambda: [a @ b for _ in range(10)], bench.device, 3) / 10
    bench.rate = 2 * side**3 / seconds / 1e12
    table.add(case=f"matrix product {side}^3, bfloat16", ms=1000 * seconds,
              note=f"{bench.rate:.1f} TFLOP/s")  # fmt: skip
    big = torch.empty((1 << 20) if bench.tiny else (1 << 30), device=bench.device)
    target = torch.empty_like(big)
    seconds = timed(lambda: target.copy_(big), bench.device, 3)
    table.add(case="copy", ms=1000 * seconds, note=f"{2 * big.nbytes / seconds / 1e12:.2f} TB/s")


# ---------------------------------------------------------------------- training


class Trainer:
    """Steps of training as `satjepa.training.loop` makes them, on one batch."""

    def __init__(self, bench: Bench, model: JointModel, size: int, graph: bool) -> None:
        params = model.params
        self.model = model.train()
        self.device = bench.device
        self.stepping = make_stepping(model, params.train)
        side = model.backbone.latent_size(params.data.patch)
        shape = (size, model.backbone.latent_channels, side, side)
        chances = Chances(params.train.caption_dropout, params.train.token_dropout)
        drops = sample_drops(size, chances)
        drops = type(drops)(*(drop.to(self.device) for drop in drops))
        sigma = torch.rand(size, device=self.device).clamp(0.01, 0.99)
        batch = make_batch(params, size, self.device, bench.text)
        batch["latent_tp1"] = torch.randn(shape, device=self.device)
        self.inputs = (batch, torch.randn(shape, device=self.device), sigma, drops)
        self.graphed = GraphedAdvance(self.forward, model) if graph else None

    def forward(self, *inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and parts under autocast."""
        with torch.autocast(self.device, torch.bfloat16):
            return self.model(*inputs)

    def step(self) -> dict[str, Tensor]:
        """One whole step; nothing waits for the device."""
        if self.graphed is None:
            parts = advance(self.forward, self.model, self.inputs)
        else:
            parts = self.graphed(self.inputs)
        self.finish()
        return parts

    def finish(self) -> None:
        """Clip, step, averages."""
        norm = self.stepping.clip()
        self.stepping.set_rates(0)
        step_if(self.stepping.optimizers, norm.isfinite() if norm.is_cuda else None)
        self.average()

    def average(self) -> None:
        """Target encoder and averaged weights."""
        self.model.update_target(0.999)
        self.model.average_weights(0.999)

    def phases(self) -> str:
        """Milliseconds of forward, backward, optimiser and averages, each waited for."""
        marks = [now(self.device)]
        loss, _ = self.forward(*self.inputs)
        marks.append(now(self.device))
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        marks.append(now(self.device))
        norm = self.stepping.clip()
        step_if(self.stepping.optimizers, norm.isfinite() if norm.is_cuda else None)
        marks.append(now(self.device))
        self.average()
        marks.append(now(self.device))
        spans = [1000 * (b - a) for a, b in pairwise(marks)]
        return "forward {:.0f}, backward {:.0f}, optimiser {:.0f}, averages {:.0f} ms".format(
            *spans
        )


@contextmanager
def trainer(
    bench: Bench, model: JointModel, size: int, graph: bool, compiled: bool, recompute: bool
) -> Any:
    """A `Trainer`, its transformer set up for it; afterwards nothing of it is left."""
    blocks = model.backbone.training_blocks("on" if compiled else "off", recompute, autocast=True)
    with blocks:
        made = Trainer(bench, model, size, graph and bench.device == "cuda")
        try:
            yield made
        finally:
            model.zero_grad(set_to_none=True)
            model._average.clear()
            model._trained = None
            del made


def training(
    bench: Bench, table: Table, name: str, size: int, graph: bool = False, compiled: bool = False,
    recompute: bool = False,
) -> None:  # fmt: skip
    """One row: a training step of a batch."""
    model = bench.model(name)
    levers = [word for word, on in (("CUDA graph", graph), ("blocks compiled", compiled),
                                    ("checkpointing", recompute)) if on]  # fmt: skip
    with trainer(bench, model, size, graph, compiled, recompute) as run:
        for _ in range(1 if bench.tiny else 3):
            run.step()
        began = now(bench.device)
        steps = 1 if bench.tiny else 8
        each = sorted(_spans(run.step, bench.device, steps))[steps // 2]
        whole = (now(bench.device) - began) / steps
        note = "" if graph else run.phases()
        if graph and run.graphed is not None and run.graphed.failed:
            note = "capture failed: launched kernel by kernel"
        finite = all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad)
        row = _speed(bench, name, size, each)
        if bench.device == "cuda":
            note += f"; reserved {torch.cuda.max_memory_reserved() / 1e9:.1f} GB"
        note = f"{note}; mean {1000 * whole:.1f} ms" + ("" if finite else "; WEIGHTS NOT FINITE")
        table.add(case=f"training, {name}", batch=size, levers=", ".join(levers) or "none",
                  ms=1000 * each, **row, peak_GB=peak_gb(bench.device),
                  note=note.strip("; "))  # fmt: skip


def _spans(function: Callable[[], Any], device: str, times: int) -> list[float]:
    return [timed(function, device, 1) for _ in range(times)]


def _speed(bench: Bench, name: str, size: int, seconds: float) -> dict[str, Any]:
    row: dict[str, Any] = {"images/s": size / seconds}
    if name in bench.tflop:
        row["TFLOP a sample"] = bench.tflop[name]
        row["share of matrix rate"] = bench.tflop[name] * size / seconds / bench.rate
    return row


def count_flops(bench: Bench, table: Table, name: str) -> None:
    """TFLOP of a training sample, counted in a step of two samples."""
    with trainer(bench, bench.model(name), 2, False, False, False) as run:
        bench.tflop[name] = tflop_of_a_sample(run)
    table.add(case=f"TFLOP a training sample, {name}", TFLOP_a_sample=bench.tflop[name])


def gradients_agree(bench: Bench, table: Table, size: int, compiled: bool) -> None:
    """Row: loss and gradients of a captured step against those of one launched kernel by kernel,
    both under autocast.
    """
    model = bench.model("ours")
    with trainer(bench, model, size, False, False, False) as run:
        inputs = run.inputs
        plain, expected = _gradients(run, inputs)
    with trainer(bench, model, size, True, compiled, False) as run:
        captured, gradients = _gradients(run, inputs)
    norm = torch.stack(torch._foreach_norm(expected)).norm()
    torch._foreach_sub_(gradients, expected)
    apart = torch.stack(torch._foreach_norm(gradients)).norm() / norm
    levers = "CUDA graph, blocks compiled" if compiled else "CUDA graph"
    table.add(case="gradients, captured against plain", batch=size, levers=levers,
              note=f"difference over norm {apart:.2e}; loss {captured:.5g} and "
                   f"{plain:.5g}")  # fmt: skip


def _gradients(run: Trainer, inputs: tuple) -> tuple[float, list[Tensor]]:
    """The loss and the gradients of one step, which is not made."""
    if run.graphed is None:
        parts = advance(run.forward, run.model, inputs)
    else:
        parts = run.graphed(inputs)
    return float(parts["loss"]), [
        p.grad.clone() for p in run.stepping.trained if p.grad is not None
    ]


def whole_loop(bench: Bench, table: Table, size: int, workers: int, steps: int) -> None:
    """Row: `satjepa.training.loop.train` as a user runs it, `train.compile: auto`."""
    from full_size_loop import loop_pace

    seconds = loop_pace(bench, "ours", size, workers, steps)
    table.add(case="training loop with its data", batch=size, levers="auto", ms=1000 * seconds,
              **_speed(bench, "ours", size, seconds), peak_GB=peak_gb(bench.device),
              note=f"{workers} workers")  # fmt: skip


# ---------------------------------------------------------------------- forecasts


def forecasting(
    bench: Bench, table: Table, name: str, size: int, title: str, levers: Levers,
    compiled: bool = False, times: int = 2,
) -> None:  # fmt: skip
    """One row: one forecast each of a batch of patches."""
    model = _prepared(bench, name, levers, compiled)
    batch = make_batch(model.params, size, bench.device, bench.text)
    if compiled:
        start = now(bench.device)
        model.forecast(batch)
        model.forecast(batch)
        note = f"first two calls {now(bench.device) - start:.0f} s"
    else:
        _steps(model, 2).forecast(batch)
        note = ""
    free(bench.device)
    seconds = timed(lambda: model.forecast(batch), bench.device, times)
    known = model.backbone._compiled.get("sampling")
    if compiled and known is not None and known.failed:
        note = "compilation failed: eager"
    table.add(case=f"forecast, {name}", batch=size, levers=title, ms=1000 * seconds,
              **{"images/s": size / seconds}, peak_GB=peak_gb(bench.device), note=note)  # fmt: skip


def _prepared(bench: Bench, name: str, levers: Levers, compiled: bool) -> JointModel:
    model = bench.model(name).eval().with_sampling(compile="on" if compiled else "off")
    model.levers = levers
    model._row_sizes = RowSizes()
    return model


def _steps(model: JointModel, steps: int) -> JointModel:
    return model.with_sampling(steps=steps)


def agreement(bench: Bench, table: Table, compiled: bool, size: int, steps: int) -> None:
    """Rows: how far each lever moves a forecast from the plain one, largest and mean |difference|
    of RGB in [0, 1].
    """
    batch = make_batch(bench.model("ours").params, size, bench.device, bench.text)
    plain = _steps(_prepared(bench, "ours", PLAIN, False), steps).forecast(batch)
    ways = {
        "guidance in one call": replace(PLAIN, guidance=True),
        "LoRA folded": replace(PLAIN, fold=True),
        "samples together": replace(PLAIN, together=True),
        "all": Levers(),
    }
    if compiled:
        ways = {"all, compiled": Levers()}
    for title, levers in ways.items():
        model = _steps(_prepared(bench, "ours", levers, compiled), steps)
        images = model.forecast(batch)
        apart = (images - plain).abs()
        table.add(case="difference from the plain forecast", batch=size, levers=title,
                  note=f"max {apart.max():.2e}, mean {apart.mean():.2e}, spread of the image "
                       f"{plain.std():.2e}, finite {bool(images.isfinite().all())}")  # fmt: skip


def fold_is_undone(bench: Bench, table: Table) -> None:
    """Row: the frozen weights are the same bits after a forecast, and the decoder's difference."""
    backbone = bench.model("ours").backbone
    weights = [p.detach() for p in backbone.transformer.parameters()]
    before = [float(p.double().sum()) for p in weights]
    with backbone.sampling("off"):
        inside = sum(a != float(p.double().sum()) for a, p in zip(before, weights, strict=True))
    same = all(a == float(p.double().sum()) for a, p in zip(before, weights, strict=True))
    table.add(case="frozen weights after folding", note=f"{inside} changed inside, equal after: "
                                                        f"{same}")  # fmt: skip
    side = backbone.latent_size(bench.model("ours").params.data.patch)
    latent = torch.randn(4, backbone.latent_channels, side, side, device=bench.device)
    with torch.no_grad():
        config = backbone.vae.config
        exact = backbone.vae.decode(latent / config.scaling_factor + config.shift_factor).sample
        apart = (backbone.decode(latent) - (exact / 2 + 0.5).clamp(0, 1)).abs()
    seconds = timed(lambda: backbone.decode(latent), bench.device, 3)
    table.add(case="VAE decoder against float32", batch=4, ms=1000 * seconds,
              note=f"max {apart.max():.2e}, mean {apart.mean():.2e} of RGB in [0, 1]")  # fmt: skip


# ---------------------------------------------------------------------- all of it


def cases(bench: Bench, table: Table) -> list[tuple[str, float, Callable[[], None]]]:
    """(name, seconds it should take, what to do), the most important first."""

    def train(size: int, seconds: float, name: str = "ours", **how: bool) -> tuple:
        title = f"training of {size}, {name} {' '.join(how)}"
        return title, seconds, lambda: training(bench, table, name, size, **how)

    def forecast(name: str, size: int, seconds: float, title: str, levers: Levers, **how: Any
                 ) -> tuple:  # fmt: skip
        def case() -> None:
            forecasting(bench, table, name, size, title, levers, **how)

        return f"forecast of {size}, {title}", seconds, case

    small, middle, large = (1, 2, 3) if bench.tiny else (1, 16, 64)
    low, mid, high = (2, 3, 4) if bench.tiny else (8, 32, 64)
    guided = replace(PLAIN, guidance=True)
    folded = Levers()
    trimmed = "words trimmed"
    merged = f"{trimmed}, tokens merged"
    rows = [
        ("rates", 3, lambda: matrix_rate(bench, table)),
        ("flops of ours", 5, lambda: count_flops(bench, table, "ours")),
        train(low, 6, graph=True),
        train(high, 10, graph=True),
        train(high, 60, graph=True, compiled=True),
        train(low, 6),
        ("folding, decoder", 4, lambda: fold_is_undone(bench, table)),
        ("agreement, eager", 8, lambda: agreement(bench, table, False, 4, 4)),
        forecast("ours", small, 75, "all, compiled", folded, compiled=True, times=5),
        ("agreement, compiled", 4, lambda: agreement(bench, table, True, small, 4)),
        forecast("ours", large, 80, "all, compiled", folded, compiled=True, times=3),
        *(forecast("untrimmed", size, 10, "none", PLAIN, times=1) for size in (small, middle)),
        *(forecast("unmerged", size, 8, trimmed, PLAIN, times=1) for size in (small, middle)),
        *(forecast("ours", size, 8, merged, PLAIN, times=1) for size in (small, middle)),
        *(forecast("ours", size, 5, f"{merged}, guidance in one call", guided, times=1)
          for size in (small, middle)),
        *(forecast("ours", size, 4, f"{merged}, guidance in one call, LoRA folded", folded)
          for size in (small, middle, large)),
        train(mid, 8, graph=True),
        train(high, 8),
        ("gradients, graph", 5, lambda: gradients_agree(bench, table, low, False)),
        train(low, 6, graph=True, recompute=True),
        train(high, 10, graph=True, recompute=True),
        ("flops, untrimmed", 5, lambda: count_flops(bench, table, "untrimmed")),
        train(low, 6, "untrimmed"),
        ("flops, published", 5, lambda: count_flops(bench, table, "published")),
        train(low, 8, "published"),
        train(mid, 8, "published"),
        forecast("published", middle, 3, "one step, as published", folded),
        train(high, 10, "published"),
        train(low, 45, graph=True, compiled=True),
        ("gradients, graph and compiled", 30, lambda: gradients_agree(bench, table, low, True)),
        ("training loop with its data", 60,
         lambda: whole_loop(bench, table, high, *((0, 4) if bench.tiny else (8, 40)))),
        train(mid, 8),
        train(high, 12, "untrimmed"),
        forecast("ours", large, 12, f"{merged}, guidance in one call", guided, times=1),
        forecast("untrimmed", large, 20, "none", PLAIN, times=1),
        forecast("ours", middle, 75, "all, compiled", folded, compiled=True, times=3),
        train(low, 45, "published", compiled=True),
    ]  # fmt: skip
    return rows


def measure_all(folder: Path, seconds: float, tiny: bool, only: str = "") -> None:
    """Build the models, run every case that fits and whose name the pattern `only` finds, print the
    table.
    """
    began = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    table = Table(folder, machine(device))
    clock = Clock(table, seconds, device)
    bench = Bench(device, tiny)
    bench.build()
    built = now(device) - began
    table.add(case="models built", ms=1000 * built, peak_GB=peak_gb(device),
              note=f"words of ours {bench.params('ours').captions.lengths}")  # fmt: skip
    rows = [row for row in cases(bench, table) if re.search(only, row[0])]
    if device == "cpu":  # compilation takes minutes there: last
        rows.sort(key=lambda row: "compiled" in row[0])
    for name, expected, case in rows:
        clock.run(name, 0 if tiny else expected, case)
    took = time.perf_counter() - began
    table.about["seconds"] = f"{took:.0f}"
    table.about["left out"] = "; ".join(clock.left_out) or "nothing"
    table.write()
    print(f"\n{table.markdown()}", flush=True)
