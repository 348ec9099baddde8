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
    ok = torch.ones(len(target), 1, *target.shape[-2:], dtype=torch.bool)
    both = {"rgb_t": target.flip(-1).clamp(0, 1), "rgb_tp1": target.clamp(0, 1)}
    return both | {"valid_t": ok, "valid_tp1": ok.clone(), "meta": meta}


def test_a_reliable_ensemble_keeps_the_line_and_a_sure_one_does_not():
    everywhere = torch.ones(6, 1, 32, 32, dtype=torch.bool)
    spread, error = gallery.binned(*world(8, 0.1, 0.1), everywhere, bins=5)
    assert (np.diff(spread) > 0).all() and error == pytest.approx(spread, rel=0.25)
    spread, error = gallery.binned(*world(8, 0.05, 0.1), everywhere, bins=5)
    assert (error > 1.3 * spread).all()


def test_a_hole_counts_nowhere():
    members, target = world(4, 0.1, 0.1)
    valid = torch.ones(6, 1, 32, 32, dtype=torch.bool)
    valid[:, :, 8:] = False
    holed = torch.where(valid, target, 9.0)
    for a, b in zip(gallery.binned(members, holed, valid, 4), gallery.binned(members, target, valid, 4), strict=True):
        assert np.array_equal(a, b)
    batch = batch_of(target) | {"valid_t": valid}
    worse = batch | {"rgb_tp1": torch.where(valid, batch["rgb_tp1"], 9.0)}
    for one, other in zip(*(gallery.reliability({"e": members}, b, 4).axes for b in (batch, worse)), strict=True):
        assert np.array_equal(one.lines[0].get_ydata(), other.lines[0].get_ydata())


def test_all_ensembles_are_drawn_and_ours_first():
    members, target = world(3, 0.1, 0.1)
    made = {f"system {i}": members for i in range(8)} | {gallery.OURS: members}
    labels = [line.get_label() for line in gallery.reliability(made, batch_of(target), 4).axes[1].lines]
    assert labels[:9] == [gallery.OURS, *(f"system {i}" for i in range(8))]


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
