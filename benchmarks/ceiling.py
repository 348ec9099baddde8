"""Which part limits the forecast, and how should an ensemble become one image?

    python benchmarks/ceiling.py [--checkpoint runs/satjepa-0/model] [--part val] [--patches 64]
                                 [--guidance 1.0 1.5]

One table, of a trained model on patches of a part of the first preset (the test part is left to the
results table):

    VAE                the truth through the VAE and back: no forecast of this backbone is better
    tokens             the latent of t+1 read linearly from the tokens (`loss.readout`), decoded:
                       what I-JEPA knows
    one sample         from pure noise
    mean of S          of the S images, as in the results table
    mean of S latents  averaged before the decoder, which runs once
    medoid of S        the sample that is nearest to all others
    from zero          the sampler started at the middle of the noise, a latent of zeros: one image,
                       nothing drawn
    oracle             the expected image, given the full state of the demo world; absent elsewhere

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
    settings = model.params.sample
    backbone = model.backbone
    latent = backbone.encode(batch["rgb_tp1"])  # (B,C,h,w)
    tokens, _ = model.predict(batch["rgb_t"], model.remember(batch))
    yield "persistence", batch["rgb_t"]
    yield "VAE", backbone.decode(latent)
    yield "tokens", backbone.decode(model.read_out(tokens))
    conditions = model.condition(batch)
    count = settings.samples
    starts = [patch_noise(batch["meta"], s, 0, latent.shape[1:]) for s in range(count)]
    for guidance in guidances:
        tag = f"guidance {guidance:g}:"
        latents = [model.sample(conditions, start, settings.steps, guidance) for start in starts]
        members = torch.stack([backbone.decode(drawn) for drawn in latents])  # (S,B,3,H,W)
        yield f"{tag} one sample", members[0]
        yield f"{tag} mean of {count}", members.mean(0)
        yield f"{tag} mean of {count} latents", backbone.decode(torch.stack(latents).mean(0))
        yield f"{tag} medoid of {count}", medoid(members)
        # The mean of the noise instead of a draw of it.
        still = model.sample(conditions, torch.zeros_like(latent), settings.steps, guidance)
        yield f"{tag} from zero", backbone.decode(still)
    if "oracle_mean" in batch:
        yield "oracle", batch["oracle_mean"]


def medoid(members: Tensor) -> Tensor:
    """Of each patch, the member of (S,B,3,H,W) that is nearest to all others: (B,3,H,W)."""
    differences = members[:, None] - members[None]  # (S,S,B,3,H,W)
    distances = differences.square().flatten(3).mean(3).sum(1)  # (S,B)
    return members[distances.argmin(0), torch.arange(members.shape[1])]


def line(name: str, image: Tensor, truth: Tensor, lpips: Tensor) -> str:
    """PSNR, SSIM, GSSIM and the LPIPS given (B,), each a mean over patches."""
    psnr = metrics.psnr(image, truth).mean()
    text = f"{name:34s} {psnr:8.2f}"
    for values in (metrics.ssim(image, truth), metrics.gssim(image, truth), lpips):
        text += f" {values.mean():8.3f}"
    return text


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=root() / "runs/satjepa-0/model")
    parser.add_argument("--part", choices=("train", "val"), default="val")
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5])
    args = parser.parse_args()
    params = load_params()
    model = load_model(args.checkpoint).to("cpu")
    data = dataset(params, args.part)
    batch = collate([data[i] for i in spread_evenly(len(data), args.patches)])
    perceptual = load_perceptual(params.eval.lpips_trunk, params.eval.fid_weights, "cpu")
    heads = ("PSNR", "SSIM", "GSSIM", perceptual.lpips_name)
    title = f"{args.part}, {args.patches} patches"
    print(f"{title:34s}" + "".join(f" {head:>8}" for head in heads))
    truth_features = perceptual.features(batch["rgb_tp1"])
    with model.averaged():
        for name, image in images(model, batch, args.guidance):
            lpips = perceptual.distance(perceptual.features(image), truth_features)
            print(line(name, image, batch["rgb_tp1"], lpips), flush=True)


if __name__ == "__main__":
    main()
