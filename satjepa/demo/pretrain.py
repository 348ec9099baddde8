"""Pre-training of the tiny SD 3.5: its imagery, and its transformer and text encoders (text and
layout to image).

Its VAE comes before, in `satjepa.demo.pretrain_vae`. All loops are plain: random crops in, one
loss, averaged weights out. They run once, for hours on a CPU or minutes on a GPU; what they made is
shipped in `assets/tiny_sd3`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from satjepa.models.averages import move_average

Log = Callable[[int, dict[str, float]], None]


class Average:
    """Exponential moving average of a module's parameters, with a short memory at the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0
        self.pairs = [list(self.module.parameters()), list(module.parameters())]

    def update(self) -> None:
        """Move the average towards the module's present parameters."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        move_average(*self.pairs, decay)


class Crops:
    """Endless random crops with a random flip or quarter turn, from (regions, years, C, H, W)
    arrays that share one grid.

    Args:
        arrays: each (regions, years, C, H·s, W·s) with its own scale s; all are cut at the same
            place.
        scales: s of each array (1 for images; 1/4 for arrays of one cell per 4 pixels).
        size: pixels a side of a crop at scale 1; corners lie on multiples of 1/min(scales).
    """

    def __init__(self, arrays: list[np.ndarray], scales: list[float], size: int, seed: int) -> None:
        self.arrays = arrays
        self.scales = scales
        self.size = size
        self.rng = np.random.default_rng(seed)

    def __call__(self, batch: int) -> list[torch.Tensor]:
        """`batch` crops of each array, on the same places and turned alike."""
        pick, (regions, years) = self.rng.integers, self.arrays[0].shape[:2]
        grid = round(1 / min(self.scales))
        span = (self.arrays[0].shape[-1] - self.size) // grid + 1
        places = [
            (pick(regions), pick(years), pick(span) * grid, pick(span) * grid, pick(4), pick(2))
            for _ in range(batch)
        ]
        return [
            torch.from_numpy(np.stack([self._cut(a, s, *p) for p in places]))
            for a, s in zip(self.arrays, self.scales, strict=True)
        ]

    def _cut(
        self, array: np.ndarray, scale: float, r: int, y: int, i: int, j: int, turn: int, flip: int
    ) -> np.ndarray:
        i, j, n = (round(v * scale) for v in (i, j, self.size))
        piece = np.rot90(array[r, y, :, i : i + n, j : j + n], turn, (-2, -1))
        return piece[..., ::-1] if flip else piece


def corpus(
    recipe: dict, regions: int, gentle: int = 4, progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Imagery for pre-training: regions of the demo world that are in no split, every `gentle`-th
    of them of the gentle preset.

    Returns rgb (regions, years, 3, size, size) uint8 and the mean embedding of each 4 x 4 pixels
    (regions, years, 64, size/4, size/4) float16. Nothing of the split's regions is in it: it is to
    the tiny backbone what the web's images are to SD 3.5.
    """
    from tqdm import tqdm

    from satjepa.demo.render import BANDS, simulate
    from satjepa.demo.world import Climate

    size = recipe["size"]
    years = recipe["years"]
    rgb = np.zeros((regions, len(years), 3, size, size), np.uint8)
    embedding = np.zeros((regions, len(years), BANDS, size // 4, size // 4), np.float16)
    for i in tqdm(range(regions), desc="corpus", unit="region", disable=not progress):
        spec = recipe["presets"]["gentle" if i % gentle == gentle - 1 else "strong"]
        climate = Climate(**{k: v for k, v in spec.items() if k != "parts"})
        for j, year in enumerate(
            simulate(recipe["seed"], "corpus", f"Corpus{i:03d}", climate, years, size)
        ):
            rgb[i, j] = year.rgb
            embedding[i, j] = year.embedding.reshape(BANDS, size // 4, 4, size // 4, 4).mean((2, 4))
    return rgb, embedding


def to_signed(image: torch.Tensor) -> torch.Tensor:
    """uint8 [0, 255] -> float32 [-1, 1], the range of diffusers' VAEs."""
    return image.float() / 127.5 - 1


def take_step(
    loss: torch.Tensor, parameters: Iterable[nn.Parameter], optimizers: list, schedules: list
) -> None:
    """One step of optimisers and schedules along the gradients of a loss, clipped to norm 1."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for each in (*optimizers, *schedules):
        each.step()


def layout_cells(embedding: torch.Tensor, cells: int = 2) -> torch.Tensor:
    """Mean AlphaEarth vectors on a grid `cells` times finer than the latent, to layout-token input.

    (B, 64, h·cells, w·cells) -> (B, h·w, 64·cells²): layer-normed over the 64 bands, the cells of a
    patch row-major, as `satjepa.models.jepa.patch_cells` makes them from pixels.
    """
    height, width = (s // cells for s in embedding.shape[-2:])
    fine = F.layer_norm(
        embedding.float().permute(0, 2, 3, 1), embedding.shape[1:2]
    )  # (B, h·c, w·c, 64)
    fine = (
        fine.unflatten(2, (width, cells)).unflatten(1, (height, cells)).transpose(2, 3)
    )  # (B, h, w, c, c, 64)
    return fine.flatten(3).flatten(1, 2)


@dataclass(frozen=True)
class Pool:
    """Windows to pre-train on. images (n,3,64,64) uint8, cells (n,64,256) float16, texts: n triples
    of captions.
    """

    images: torch.Tensor
    cells: torch.Tensor
    texts: list[tuple[str, str, str]]


def make_pool(
    rgb: np.ndarray,
    embedding: np.ndarray,
    windows: int,
    size: int,
    seed: int,
    progress: bool = True,
) -> Pool:
    """`windows` random crops of the corpus (a multiple of 64) with their layout cells and their
    captions by rule.
    """
    from tqdm import tqdm

    from satjepa.captions.rules import caption

    crops = Crops([rgb, embedding], [1, 1 / 4], size, seed)
    images = []
    cells = []
    texts = []
    for _ in tqdm(range(windows // 64), desc="pool", unit="batch", disable=not progress):
        image, vectors = crops(64)
        images.append(image)
        cells.append(layout_cells(vectors).half())
        texts += [
            tuple(caption(one.numpy().astype(np.float32) / 255, encoding="display"))
            for one in image
        ]
    return Pool(torch.cat(images), torch.cat(cells), texts)


@torch.no_grad()
def latents_of(vae: nn.Module, images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """Posterior means of uint8 images (n,3,H,W): (n,16,h,w), shifted and scaled as the VAE's
    configuration says.
    """
    raw = torch.cat(
        [vae.encode(to_signed(part)).latent_dist.mode() for part in images.split(batch)]
    )
    return (raw - vae.config.shift_factor) * vae.config.scaling_factor


def token_ids(
    text: nn.Module, texts: list[tuple[str, str, str]], length: int
) -> dict[str, torch.Tensor]:
    """Token ids (n, 3, ...) of n triples of captions, for each of the three tokenizers."""
    flat = [one for triple in texts for one in triple]
    parts = [text.tokenize(flat[i : i + 4096], length) for i in range(0, len(flat), 4096)]
    return {key: torch.cat([part[key] for part in parts]).unflatten(0, (-1, 3)) for key in parts[0]}


class Generator(nn.Module):
    """What is pre-trained together: transformer, text encoders and layout tokens; its forward is
    the flow-matching loss.

    Args:
        drop_text, drop_layout: share of samples that are told no caption, or no embedding
            (positions are always told), so that the backbone can draw from text alone, from layout
            alone, and from neither.
    """

    def __init__(
        self,
        transformer: nn.Module,
        text: nn.Module,
        layout: nn.Module,
        drop_text: float,
        drop_layout: float,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.text = text
        self.layout = layout
        self.drop_text = drop_text
        self.drop_layout = drop_layout

    def forward(
        self,
        latent: torch.Tensor,
        cells: torch.Tensor,
        ids: dict[str, torch.Tensor],
        empty: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """Mean squared error of the predicted velocity of x_s = (1 - s) x0 + s noise, s
        logit-normal.

        latent (B,16,h,w), cells (B,h·w,256), ids: token ids of one caption a sample, empty: those
        of the empty text.
        """
        batch = len(latent)
        mute = torch.rand(batch) < self.drop_text
        blind = torch.rand(batch) < self.drop_layout
        ids = {k: torch.where(mute[:, None], empty[k], v) for k, v in ids.items()}
        hidden, _, pooled = self.text(ids)  # (B, L, joint), (B, P)
        context = torch.cat([self.layout(cells, blind), hidden], 1)  # (B, h·w + L, joint)
        sigma = torch.sigmoid(torch.randn(batch))  # (B,)
        noise = torch.randn_like(latent)
        s = sigma[:, None, None, None]
        velocity = self.transformer(
            (1 - s) * latent + s * noise, context, pooled, 1000 * sigma, return_dict=False
        )[0]
        return F.mse_loss(velocity, noise - latent)


def train_generator(
    generator: Generator,
    latents: torch.Tensor,
    cells: torch.Tensor,
    ids: dict[str, torch.Tensor],
    empty: dict[str, torch.Tensor],
    steps: int,
    batch: int,
    lr: float,
    muon_lr: float,
    log: Log,
    keep: Callable[[int, Generator], None] = lambda step, averaged: None,
) -> Generator:
    """Pre-train on n windows and return the averaged weights; `keep` is shown them after every
    step.

    Muon moves the matrices of attention and feed-forward of the transformer's blocks, AdamW all
    else, one cycle each. latents (n,16,h,w), cells (n,h·w,256), ids: token ids (n,3,...) of the
    three captions, of which each draw reads one at random.
    """
    parameters = [p for p in generator.parameters() if p.requires_grad]
    blocks = generator.transformer.transformer_blocks.named_parameters()
    hidden = [p for name, p in blocks if p.ndim == 2 and ".norm" not in name]
    inside = {id(p) for p in hidden}
    rest = [p for p in parameters if id(p) not in inside]
    adamw = torch.optim.AdamW(rest, lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    muon = torch.optim.Muon(hidden, muon_lr, weight_decay=0.01)
    cycle = partial(
        torch.optim.lr_scheduler.OneCycleLR, total_steps=steps, pct_start=0.05, final_div_factor=100
    )
    schedules = [cycle(adamw, lr), cycle(muon, muon_lr, cycle_momentum=False)]
    average = Average(generator, 0.995)
    for step in range(steps):
        pick = torch.randint(len(latents), (batch,))
        which = torch.randint(3, (batch,))
        loss = generator(
            latents[pick].float(),
            cells[pick].float(),
            {k: v[pick, which] for k, v in ids.items()},
            empty,
        )
        take_step(loss, parameters, [adamw, muon], schedules)
        average.update()
        log(step + 1, {"loss": loss.item()})
        keep(step + 1, average.module)
    return average.module


@torch.no_grad()
def draw(
    generator: Generator,
    vae: nn.Module,
    pool: Pool,
    latents: torch.Tensor,
    ids: dict[str, torch.Tensor],
    empty: dict[str, torch.Tensor],
    count: int,
    seed: int,
    steps: int = 20,
) -> dict[str, torch.Tensor]:
    """Pictures (count,3,H,W) in [0,1] of what the generator can do: drawn with layout and caption,
    with either.
    """
    from satjepa.models.flow import euler, sigmas

    noise = torch.randn(latents[:count].shape, generator=torch.Generator().manual_seed(seed))
    cells = pool.cells[:count].float()
    config = vae.config
    told = {k: v[:count, 2] for k, v in ids.items()}
    mute = {k: v.expand(count, -1) for k, v in empty.items()}

    def picture(z: torch.Tensor) -> torch.Tensor:
        return (vae.decode(z / config.scaling_factor + config.shift_factor).sample / 2 + 0.5).clamp(
            0, 1
        )

    def drawn(words: dict[str, torch.Tensor], blind: bool) -> torch.Tensor:
        hidden, _, pooled = generator.text(words)
        context = torch.cat([generator.layout(cells, torch.full((count,), blind)), hidden], 1)
        return picture(
            euler(
                lambda z, s: generator.transformer(z, context, pooled, 1000 * s, return_dict=False)[
                    0
                ],
                noise,
                sigmas(steps),
            )
        )

    return {
        "image": pool.images[:count].float() / 255,
        "through the VAE": picture(latents[:count]),
        "layout + caption": drawn(told, False),
        "layout": drawn(mute, False),
        "caption": drawn(told, True),
    }
