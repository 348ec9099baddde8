"""The plain U-Net: it starts at persistence, sees what it should, and learns a shift within
seconds.
"""

import torch

from satjepa.baselines.unet import UNet


def batch_of(size: int = 4, side: int = 16) -> dict:
    """Year t+1 is year t moved right by one pixel."""
    g = torch.Generator().manual_seed(0)
    rgb = (
        torch.rand(size, 3, side // 4, side // 4, generator=g)
        .repeat_interleave(4, 2)
        .repeat_interleave(4, 3)
    )
    ok = torch.ones(size, 1, side, side, dtype=torch.bool)
    return {
        "rgb_t": rgb,
        "rgb_tp1": rgb.roll(1, 3),
        "valid_t": ok,
        "valid_tp1": ok,
        "history": torch.rand(size, 2, 3, side, side, generator=g) + 0.01,
        "history_valid": torch.tensor([[True, True]] * (size - 1) + [[False, False]]),
    }


def test_training_begins_at_persistence():
    batch = batch_of()
    model = UNet(8, 3, history=2)
    assert torch.equal(model.forecast(batch, samples=2), batch["rgb_t"].expand(2, -1, -1, -1, -1))


def test_it_learns_a_shift():
    torch.manual_seed(0)
    batch = batch_of()
    model = UNet(8, 3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = model.loss(batch, torch.Generator(), 0)[0].item()
    for step in range(60):
        loss, _ = model.loss(batch, torch.Generator(), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 10


def test_it_sees_the_years_and_which_pixels_are_known():
    torch.manual_seed(0)
    batch = batch_of()
    model = UNet(8, 3, history=2)
    torch.nn.init.normal_(model.last.weight)
    image = model.predict(batch)
    assert image.shape == (4, 3, 16, 16)
    changes = [
        {"history": batch["history"].flip(1)},
        {"history_valid": ~batch["history_valid"]},
        {"valid_t": batch["valid_t"] & (torch.arange(16) > 3)},
    ]
    assert all(not torch.allclose(model.predict(batch | change), image) for change in changes)
    assert torch.equal(
        UNet(8, 3).predict(batch), UNet(8, 3).predict(batch | {"history": 0 * batch["history"]})
    )


def test_only_pixels_valid_in_both_years_are_in_the_loss():
    torch.manual_seed(0)
    batch = batch_of()
    model = UNet(8, 3)
    left = torch.arange(16) < 8
    half = batch | {"valid_tp1": batch["valid_tp1"] & left}
    squared = (batch["rgb_t"] - batch["rgb_tp1"]).square()
    assert torch.isclose(model.loss(half, torch.Generator(), 0)[0], squared[..., left].mean())
    assert model.loss(batch | {"valid_t": ~batch["valid_t"]}, torch.Generator(), 0)[0] == 0


def test_size():
    """Near SimVP small's 1.2 million at width 40; the demo's and the table's are 16 and 24."""
    counts = [sum(p.numel() for p in UNet(width, 4, 2).parameters()) for width in (16, 24, 40)]
    assert counts == [212_883, 476_571, 1_318_443]
