"""The right land, and the right place, are two things."""

import pytest
import torch

from satjepa.evaluation.land import land_and_place

FOREST = torch.tensor([0.10, 0.18, 0.11])[:, None, None]
FIELD = torch.tensor([0.26, 0.47, 0.20])[:, None, None]


def halves(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.cat([left.expand(3, 64, 32), right.expand(3, 64, 32)], -1)


def test_a_mirrored_land_is_the_right_land_in_the_wrong_place():
    truth = halves(FOREST, FIELD)[None]
    mirrored = halves(FIELD, FOREST)[None]
    forest = halves(FOREST, FOREST)[None]
    images = {"truth": truth, "mirrored": mirrored, "forest": forest}
    table = land_and_place(images, truth)
    assert table.loc["truth"].tolist() == [1, 1]
    assert table.loc["mirrored", "land"] > 0.9 and table.loc["mirrored", "place"] < 0.1
    assert table.loc["forest"].tolist() == pytest.approx([0.5, 0.5], abs=0.06)
