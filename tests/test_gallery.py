"""The gallery of all systems: what its numbers mean, and that each system is drawn where it stands."""

import numpy as np
import pytest
import torch

from satjepa import gallery


def world(members: int, spread: float, truth: float) -> tuple[torch.Tensor, torch.Tensor]:
    """An ensemble and a truth that scatter about the same places, by different amounts."""
    g = torch.Generator().manual_seed(0)
    centre = torch.rand(6, 1, 32, 32, generator=g).expand(6, 3, 32, 32)
    own = torch.rand(6, 3, 32, 32, generator=g) + 0.05  # how uncertain a pixel is
    scatter = torch.randn(members + 1, 6, 3, 32, 32, generator=g) * own
    return centre + spread * scatter[1:], centre + truth * scatter[0]


def batch_of(target: torch.Tensor) -> dict:
    meta = [{"region": f"R{i}", "year": 2020} for i in range(len(target))]
    return {"rgb_t": target.flip(-1).clamp(0, 1), "rgb_tp1": target.clamp(0, 1), "meta": meta}


def test_a_reliable_ensemble_keeps_the_line_and_a_sure_one_does_not():
    spread, error = gallery.binned(*world(8, 0.1, 0.1), bins=5)
    assert (np.diff(spread) > 0).all() and error == pytest.approx(spread, rel=0.25)
    spread, error = gallery.binned(*world(8, 0.05, 0.1), bins=5)
    assert (error > 1.3 * spread).all()


def test_only_ensembles_are_asked_for_reliability():
    members, target = world(4, 0.1, 0.1)
    fig = gallery.reliability({"many": members, "one": members[:1]}, batch_of(target), bins=4)
    left, right = fig.axes
    assert [line.get_label() for line in right.lines if not line.get_label().startswith("_")] == ["many"]
    ranks = left.lines[0].get_ydata()
    assert len(ranks) == 5 and ranks.mean() == pytest.approx(1)


def test_pictures_and_errors_stand_under_their_system():
    _, target = world(1, 0.1, 0.1)
    batch = batch_of(target)
    made = {"persistence": batch["rgb_t"][None], "right": batch["rgb_tp1"][None], gallery.OURS: batch["rgb_t"][None]}
    fig = gallery.systems(made, batch, rows=2)
    titles = [ax.get_title() for ax in fig.axes[:4]]
    assert titles == ["year t", "truth,\nyear t+1", "right", "ours,\nzero-RGB"] and len(fig.axes) == 8
    shown = np.asarray(fig.axes[2].images[0].get_array())
    assert np.allclose(shown, batch["rgb_tp1"][0].permute(1, 2, 0).numpy())
    maps = gallery.errors(made, batch, rows=2).axes
    of = {ax.get_title(): np.asarray(ax.images[0].get_array()) for ax in maps[:4]}
    black = np.asarray(of["right"]).max()
    assert black < 0.02 < of["Default\n(persistence)"].mean()
