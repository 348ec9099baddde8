"""Pre-training of the tiny backbone: crops line up, layout tokens are those of the joint training,
losses fall.
"""

import numpy as np
import pytest
import torch

from satjepa.demo import pretrain, pretrain_vae
from satjepa.demo.pretrain_steps import Average
from satjepa.demo.tiny_sd3 import Layout, build_transformer, build_vae, positions_of
from satjepa.models.jepa import patch_cells


def test_crops_cut_all_arrays_at_the_same_place() -> None:
    fine = np.arange(2 * 3 * 1 * 32 * 32).reshape(2, 3, 1, 32, 32)
    coarse = fine[..., ::4, ::4]
    crops = pretrain.Crops([fine, coarse], [1, 1 / 4], 16, 0)
    image, cells = crops(20)
    assert image.shape == (20, 1, 16, 16)
    assert cells.shape == (20, 1, 4, 4)
    assert all(
        np.isin(cell, block).all() for cell, block in zip(cells.numpy(), image.numpy(), strict=True)
    )
    assert len({int(c[0, 0, 0]) for c in cells}) > 10


def test_layout_cells_are_the_cells_of_the_joint_training() -> None:
    embedding = torch.randn(2, 64, 64, 64)
    ours, _ = patch_cells(embedding, 8, 2)
    pooled = torch.nn.functional.avg_pool2d(embedding, 4)
    assert torch.allclose(pretrain.layout_cells(pooled), ours.flatten(2), atol=1e-5)


def test_average_follows_with_a_short_memory_at_first() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    average = Average(module, 0.9)
    torch.nn.init.constant_(module.weight, 5.0)
    start = average.module.weight.item()
    average.update()
    assert average.module.weight.item() == pytest.approx(start + (1 - 2 / 11) * (5 - start))
    for _ in range(200):
        average.update()
    assert average.module.weight.item() == pytest.approx(5.0, abs=1e-3)


def test_vae_loss_falls() -> None:
    torch.manual_seed(0)
    images = (
        np.random.default_rng(0)
        .integers(0, 255, (2, 2, 3, 8, 8), np.uint8)
        .repeat(8, -1)
        .repeat(8, -2)
    )
    losses = []
    pretrain_vae.train_vae(
        build_vae((8, 8, 8, 8)),
        pretrain.Crops([images], [1], 64, 0),
        25,
        4,
        1e-2,
        lambda _, p: losses.append(p["loss"]),
    )
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])


def test_polishing_moves_the_decoder_alone_and_nearer_to_the_image() -> None:
    torch.manual_seed(0)
    images = (
        np.random.default_rng(0)
        .integers(0, 255, (2, 2, 3, 8, 8), np.uint8)
        .repeat(8, -1)
        .repeat(8, -2)
    )
    vae = build_vae((8, 8, 8, 8))
    far = []
    before = {name: value.clone() for name, value in vae.state_dict().items()}

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3), keepdim=True)

    crops = pretrain.Crops([images], [1], 64, 0)
    log = lambda _, parts: far.append(parts["lpips"])  # noqa: E731
    after = pretrain_vae.polish_decoder(vae, distance, 5.0, crops, 60, 4, 1e-2, log).state_dict()
    moved = {
        name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])
    }
    assert moved == {"decoder"} and np.mean(far[-10:]) < 0.95 * np.mean(far[:3])


class Words(torch.nn.Module):
    """Stands in for the text encoders: ids to vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(10, 128)

    def forward(self, ids: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        hidden = self.table(ids["t5"])
        return hidden, ids["mask"], hidden.mean(1)


@pytest.mark.parametrize("told", ["layout", "text"])
def test_generator_learns_from_layout_and_from_text(told: str) -> None:
    torch.manual_seed(0)
    transformer = build_transformer(layers=2, heads=1)
    layout = Layout(256, positions_of(transformer, 8))
    generator = pretrain.Generator(
        transformer,
        Words(),
        layout,
        drop_text=float(told == "layout"),
        drop_layout=float(told == "text"),
    )
    kind = torch.randint(2, (64,))
    latents = (2.0 * kind - 1)[:, None, None, None].expand(-1, 16, 8, 8)
    cells = (2.0 * kind - 1)[:, None, None].expand(-1, 64, 256)
    ids = {
        "t5": kind[:, None, None].expand(-1, 3, 4),
        "mask": torch.ones(64, 3, 4, dtype=torch.bool),
    }
    empty = {"t5": torch.full((1, 4), 9), "mask": torch.ones(1, 4, dtype=torch.bool)}
    losses: list[float] = []

    def keep(step: int, parts: dict[str, float]) -> None:
        losses.append(parts["loss"])

    pretrain.train_generator(generator, latents, cells, ids, empty, 60, 8, 1e-2, 1e-2, keep)
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
