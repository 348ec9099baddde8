"""Which part limits the forecast, and how should an ensemble become one image?

    python benchmarks/ceiling.py [--checkpoint runs/joint/0/model] [--part val] [--patches 64]
    [--guidance 1.0 1.5]

One table, of a trained model on patches of a part of the first preset (the test part is left to the
results table):

    VAE               the truth through the VAE and back: no forecast of this backbone can be better
    tokens            the latent of t+1 read linearly from the tokens (`loss.readout`), decoded:
    what I-JEPA knows
    one sample        from pure noise
    mean of S         of the S images, as in the results table
    mean of S latents averaged before the decoder, which runs once
    medoid of S       the sample that is nearest to all others
    from zero         the sampler started at the middle of the noise, a latent of zeros: one image,
    nothing drawn
    oracle            the expected image, given the full state of the demo world; absent elsewhere

If `tokens` is no better on the training part than on the validation part, nothing is overfitted,
and the way up is more training, or a larger model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from satjepa.assemble import dataset, load_model
from satjepa.config import load_params
from satjepa.data.pairs import collate, spread_evenly
from satjepa.metrics import pixels as metrics
from satjepa.metrics.perceptual import load_perceptual
from satjepa.models.flow import patch_noise
from satjepa.models.joint import JointModel
from satjepa.paths import root


def images(
    model: JointModel, batch: dict[str, Any], guidances: list[float]
) -> Iterator[tuple[str, Tensor]]:
    """The images to be scored, (B,3,H,W) each, under their names."""
    how = model.params.sample
    backbone = model.backbone
    truth = batch["rgb_tp1"]
    latent = backbone.encode(truth)
    conditions = model.condition(batch)
    starts = [patch_noise(batch["meta"], s, 0, latent.shape[1:]) for s in range(how.samples)]
    yield "persistence", batch["rgb_t"]
    yield "VAE", backbone.decode(latent)
    yield (
        "tokens",
        backbone.decode(model.read_out(model.predict(batch["rgb_t"], model.remember(batch))[0])),
    )
    for guidance in guidances:
        latents = torch.stack(
            [model.sample(conditions, start, how.steps, guidance) for start in starts]
        )
        members = torch.stack([backbone.decode(latent) for latent in latents])
        tag = f"guidance {guidance:g}:"
        distances = (members[:, None] - members[None]).square().flatten(3).mean(3).sum(1)  # (S,B)
        yield f"{tag} one sample", members[0]
        yield f"{tag} mean of {how.samples}", members.mean(0)
        yield f"{tag} mean of {how.samples} latents", backbone.decode(latents.mean(0))
        yield (
            f"{tag} medoid of {how.samples}",
            members[distances.argmin(0), torch.arange(len(truth))],
        )
        still = model.sample(conditions, torch.zeros_like(latent), how.steps, guidance)
        yield f"{tag} from zero", backbone.decode(still)
    if "oracle_mean" in batch:
        yield "oracle", batch["oracle_mean"]


def line(name: str, image: Tensor, truth: Tensor, distance: Tensor) -> str:
    """PSNR, SSIM, GSSIM and the LPIPS given (B,), each a mean over patches."""
    psnr, *others = (
        metrics.psnr(image, truth),
        metrics.ssim(image, truth),
        metrics.gssim(image, truth),
        distance,
    )
    return f"{name:34s} {psnr.mean():8.2f}" + "".join(f" {value.mean():8.3f}" for value in others)


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=root() / "runs/joint/0/model")
    parser.add_argument("--part", choices=("train", "val"), default="val")
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5])
    args = parser.parse_args()
    params = load_params()
    model = load_model(args.checkpoint).to("cpu")
    data = dataset(params, args.part)
    batch = collate([data[i] for i in spread_evenly(len(data), args.patches)])
    perceptual = load_perceptual(params.eval.lpips_trunk, params.eval.fid_weights, "cpu")
    heads = "".join(f" {head:>8}" for head in ("PSNR", "SSIM", "GSSIM", perceptual.lpips_name))
    print(f"{f'{args.part}, {args.patches} patches':34s}{heads}")
    seen = perceptual.features(batch["rgb_tp1"])
    with model.averaged():
        for name, image in images(model, batch, args.guidance):
            distance = perceptual.distance(perceptual.features(image), seen)
            print(line(name, image, batch["rgb_tp1"], distance), flush=True)


if __name__ == "__main__":
    main()
