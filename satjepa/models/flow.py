"""Flow matching as plain functions: noising, velocity target, noise levels and the Euler sampler of
SD 3.

Convention (Esser et al. 2024, "Scaling rectified flow transformers"; the same as diffusers' SD 3
training script): sigma 0 is the clean latent x0, sigma 1 is pure noise n, and between them lies the
straight line

    z(sigma) = (1 - sigma) x0 + sigma n,        dz/dsigma = n - x0 = velocity.

The transformer is given the timestep 1000 sigma.
"""

import hashlib
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""velocity(z (B,C,h,w), sigma (B,)) -> (B,C,h,w)"""


def noisy(x0: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """Point of the straight path, (1 - sigma) x0 + sigma noise: both (B,C,h,w), sigma (B,) or one
    number in [0, 1].
    """
    sigma = torch.as_tensor(sigma, dtype=x0.dtype, device=x0.device).view(-1, 1, 1, 1)
    return (1 - sigma) * x0 + sigma * noise


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """What the transformer has to say at every point of the path: noise - x0, (B,C,h,w)."""
    return noise - x0


def sample_sigmas(
    batch: int, mean: float, std: float, generator: torch.Generator | None = None
) -> Tensor:
    """Logit-normal noise levels for training: sigmoid(mean + std * N(0, 1)), (B,) float32 in (0, 1)
    on the CPU.

    mean > 0 leans towards noise. (The published code draws sigma uniformly, in bfloat16.)
    """
    return torch.sigmoid(mean + std * torch.randn(batch, generator=generator))


def sigmas(steps: int, shift: float = 1.0, start: float = 1.0) -> Tensor:
    """Noise levels of a sampler with ``steps`` model calls: (steps + 1,) from ``start`` down to 0.

    Evenly spaced levels u become shift u / (1 + (shift - 1) u): shift > 1 spends more steps near
    noise (SD 3.5: 3). start < 1 shrinks the whole path, for a sampler that begins from a partly
    noised image.
    """
    u = torch.linspace(1, 0, steps + 1)
    return start * shift * u / (1 + (shift - 1) * u)


def euler(
    velocity: Velocity,
    z: Tensor,
    path: Tensor,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Follow the velocity along ``path`` (K+1 falling noise levels) in K straight steps.

    z (B,C,h,w) is the latent at path[0]; the result is the latent at path[-1]. ``callback(i, z)``
    sees each step. All of it is on the device of z before the first step.
    """
    path = path.to(z)
    for i, (here, there) in enumerate(pairwise(path)):
        z = z + (there - here) * velocity(z, here.expand(len(z)))
        if callback is not None:
            callback(i, z)
    return z


def from_image(
    velocity: Velocity, start: Tensor, noise: Tensor, strength: float, steps: int = 1,
    anchor: Tensor | None = None, share: float = 0.0,
) -> Tensor:  # fmt: skip
    """The published samplers, which begin from an image: K steps of strength / K along the flow.

        z = (1 - strength) start + strength noise;
        z <- z - (strength / K) v(z, strength (1 - i / K)), i = 0 .. K - 1;
        z <- (1 - share) z + share anchor

    start, noise, anchor (B,C,h,w): the latent of year t, standard noise, and a latent that the
    result is drawn to. Evaluation takes one step, whatever it was asked for; the rollout takes K,
    then the anchor.
    """
    z = euler(velocity, noisy(start, noise, strength), sigmas(steps, start=strength))
    return z if anchor is None else torch.lerp(z, anchor, share)


def guided(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance: unconditional + scale (conditional - unconditional). Scale 1 costs
    one call only.
    """
    if scale == 1:
        return conditional

    def velocity(z: Tensor, sigma: Tensor) -> Tensor:
        base = unconditional(z, sigma)
        return base + scale * (conditional(z, sigma) - base)

    return velocity


def guided_at_once(
    velocity: Callable[..., Tensor],
    seen: tuple[Tensor, Tensor],
    null: tuple[Tensor, Tensor],
    scale: float,
) -> Velocity:
    """`guided` with both halves in one call of ``velocity(z, sigma, context, pooled)``, as a batch
    of 2B. seen, null: context (B,M,joint) and pooled (B,P), with and without what is known.
    """
    if scale == 1:
        return lambda z, sigma: velocity(z, sigma, *seen)
    context, pooled = (torch.cat(pair) for pair in zip(null, seen, strict=True))  # (2B,...) each

    def both(z: Tensor, sigma: Tensor) -> Tensor:
        base, full = velocity(z.repeat(2, 1, 1, 1), sigma.repeat(2), context, pooled).chunk(2)
        return base + scale * (full - base)

    return both


BLOCK = 16  # side of the blocks, in cells, that the noise of a scene is drawn in


def patch_noise(metas: list[dict], sample: int, seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (B, *shape), float32 on the CPU, that depends on the place and not on
    the batch.

    The noise of a patch comes from its own generator, seeded by a hash of (seed, sample, preset,
    region, year, x, y): so a forecast is the same alone or in any batch, in any order, on any
    device.

    A meta with `tile`, its side in pixels, is of a tile of a scene: its noise is a window of the
    one field of that scene, so that tiles which overlap draw the same there (`scene_noise`).
    """
    noise = []
    for meta in metas:
        scene = [seed, sample, str(meta.get("preset", "")), str(meta["region"]), str(meta["year"])]
        if "tile" in meta:
            noise.append(scene_noise(scene, meta, shape))
        else:
            noise.append(_drawn([*scene, str(meta["x"]), str(meta["y"])], shape))
    return torch.stack(noise)


def scene_noise(scene: list, meta: dict, shape: tuple[int, ...]) -> Tensor:
    """The window (C,h,w) of the noise of a scene under a tile of `tile` x `tile` pixels at (x, y).

    scene: what seeds the field. A cell is tile / h pixels, and (x, y) is the corner of one. The
    field is drawn in blocks of 16 x 16 cells, each by a generator of its own: any window of a scene
    of any size is there at once, and the same whoever asks. Raises ValueError for a tile that lies
    between cells.
    """
    channels, height, width = shape
    cell = meta["tile"] // height
    if meta["y"] % cell or meta["x"] % cell:
        raise ValueError(f"a tile at {meta['x']}, {meta['y']}: not on cells of {cell} pixels")
    top = meta["y"] // cell
    left = meta["x"] // cell
    rows = range(top // BLOCK, (top + height - 1) // BLOCK + 1)
    columns = range(left // BLOCK, (left + width - 1) // BLOCK + 1)
    strips = []
    for row in rows:
        key = [*scene, "field", str(row)]
        blocks = [_drawn([*key, str(column)], (channels, BLOCK, BLOCK)) for column in columns]
        strips.append(torch.cat(blocks, -1))
    y = top - rows[0] * BLOCK
    x = left - columns[0] * BLOCK
    return torch.cat(strips, -2)[:, y : y + height, x : x + width]


def _drawn(key: list, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise by a generator that is seeded by a hash of the key."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.randn(shape, generator=generator)
