"""The mask sampler against the statistics of the published one (golden k)."""

import json

import pytest
import torch

from satjepa.models.published.masks import Blocks, block_sizes, sample_masks


@pytest.fixture
def golden(shared):
    k = json.loads((shared / "reference/golden/k_mask_statistics.json").read_text())
    c = k["config"]
    blocks = Blocks(
        c["enc_mask_scale"],
        c["pred_mask_scale"],
        c["aspect_ratio"],
        c["nenc"],
        c["npred"],
        c["min_keep"],
    )
    return k, blocks, c["input_size"] // c["patch_size"]


def test_published_settings_are_the_defaults(golden):
    assert {name: pytest.approx(value) for name, value in vars(golden[1]).items()} == vars(Blocks())


def test_block_sizes_are_those_of_the_published_calls(golden):
    k, blocks, grid = golden
    known = k["block_sizes_for_call_number_s"]
    assert known["columns"] == ["target_h", "target_w", "context_h", "context_w"]
    assert [[*target, *context] for target, context in (block_sizes(s, grid,
    blocks) for s in range(len(known["rows"])))
            ] == known["rows"]  # fmt: skip


def test_what_is_covered_and_how_often(golden):
    """500 calls of 8 samples: sizes are the same, places have other random numbers (0.03 is four
    deviations).
    """
    k, blocks, grid = golden
    torch.manual_seed(0)
    counts = {"context": [], "target": []}
    inside = []
    seen = {"context": 0, "target": 0}
    for call in range(k["draws"]):
        context, target = sample_masks(call, k["batch"], grid, blocks)
        for name, mask in (("context", context), ("target", target)):
            counts[name].append(mask.shape[-1])
            seen[name] = seen[name] + torch.bincount(mask.flatten(), minlength=grid**2)
        pairs = zip(context[0], target[0], strict=True)
        inside.append(torch.tensor([torch.isin(t, c).float().mean() for c, t in pairs]))
    for name, sizes in counts.items():
        sizes = torch.tensor(sizes).double()
        known = k[f"{name}_patches_per_sample"]
        assert sizes.mean().item() == pytest.approx(known["mean"]) and sizes.max() == known["max"]
        frequency = seen[name].view(grid, grid) / (k["draws"] * k["batch"])
        assert (frequency - torch.tensor(k[f"{name}_frequency_per_patch"])).abs().max() < 0.03
        assert frequency[-1].sum() == frequency[:, -1].sum() == 0 and frequency[:-1, :-1].min() > 0
    known = k["fraction_of_target_inside_first_context"]
    assert torch.cat(inside).mean().item() == pytest.approx(known["mean"], abs=0.005)
    assert torch.cat(inside).min() >= known["min"] - 0.05


def test_masks_are_blocks_of_ascending_patch_numbers_with_their_own_place():
    context, target = sample_masks(
        5, 4, 8, Blocks(contexts=2, targets=3), torch.Generator().manual_seed(1)
    )
    (rows, columns), (height, width) = block_sizes(5, 8)
    assert target.shape == (3, 4, rows * columns) and context.shape == (2, 4, height * width)
    assert target.dtype == torch.int64 and (target.diff(dim=-1) > 0).all()
    shapes = {(len(set(m // 8)), len(set(m % 8))) for m in target.flatten(0, 1).numpy()}
    assert shapes == {(rows, columns)} and len({m[0] for m in target.flatten(0, 1).tolist()}) > 1
    again, _ = sample_masks(5, 4, 8, Blocks(contexts=2), torch.Generator().manual_seed(1))
    assert torch.equal(
        again[0], sample_masks(5, 4, 8, Blocks(contexts=2), torch.Generator().manual_seed(1))[0][0]
    )
    assert not torch.equal(
        sample_masks(5, 4, 8)[1], sample_masks(5, 4, 8)[1]
    )  # the global generator goes on


def test_a_small_grid_has_masks_too():
    """Where a block cannot hold more patches than min_keep; the published sampler never returns
    there.
    """
    sizes = {block_sizes(call, 4) for call in range(30)}
    assert ((2, 3), (3, 3)) in sizes and all(
        1 <= side <= 3 for pair in sizes for size in pair for side in size
    )
