"""PredRNN against the reference's golden vectors, its published sizes, and what it does with
missing years.
"""

import math

import pytest
import torch
from golden import agree, gradient_norm, load, read

from satjepa.baselines.predrnn import PredRNN, draw_feed, fold, keep_rates, unfold

NAMES = {f"conv_{gate}.0": gate for gate in "xhmo"} | {"cell_list": "cells", "conv_last": "last"}
SIZES = {"side": 16, "hidden": 8, "layers": 3, "patch": 2}
PUBLISHED = {"side": 128, "hidden": 128, "layers": 4}


def channels_first(frames: torch.Tensor) -> torch.Tensor:
    """(B,T,H,W,C) -> (B,T,C,H,W)"""
    return frames.permute(0, 1, 4, 2, 3)


def golden(shared, version: int):
    tensors, inputs, outputs = read(shared, f"predrnn_v{version}")
    tensors = {
        ("head.weight" if name == "conv_last.weight" else name): value
        for name, value in tensors.items()
    }
    return load(PredRNN(**SIZES, decouple=0.1 * (version - 1)), tensors, NAMES), inputs, outputs


def test_folding_is_the_references(shared):
    _, inputs, outputs = read(shared, "units")
    image = channels_first(inputs["patch_img_bthwc"])
    assert torch.equal(fold(image, 2), channels_first(outputs["patch_p2"]))
    assert torch.equal(unfold(fold(image, 2), 2), image)
    assert not torch.equal(
        fold(image, 2), torch.nn.functional.pixel_unshuffle(image, 2)
    )  # another order


@pytest.mark.parametrize("version", [1, 2])
def test_one_year_to_one(shared, version: int):
    model, inputs, outputs = golden(shared, version)
    states = []
    for cell in model.cells:
        cell.register_forward_hook(lambda cell, args, out: states.append(out))
    frames = channels_first(inputs["a_frames_bthwc"])
    said, decoupling = model(frames[:, :1], torch.ones(2, 1))
    assert agree(said, channels_first(outputs["a_pred_bthwc"]))
    assert agree(fold(said, 2), channels_first(outputs["a_pred_patched"]))
    assert agree(fold(frames, 2), channels_first(outputs["a_patched_frames"]))
    names = ("h", "c", "m", "dc", "dm")[: 3 if version == 1 else 5]
    for i, state in enumerate(states):
        assert all(
            agree(value, outputs[f"a_layer{i}_{name}"])
            for name, value in zip(names, state, strict=False)
        )
    mse = (said - frames[:, 1:]).square().mean()
    if version == 2:
        assert agree(mse, outputs["a_mse"]) and agree(decoupling, outputs["a_decouple"])
    loss = mse + model.decouple * decoupling
    assert agree(loss, outputs["a_loss"]) and agree(
        gradient_norm(loss, model), outputs["a_gradnorm"]
    )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", ["b", "c"])
def test_three_years_to_three(shared, version: int, case: str):
    """Scheduled sampling gives all context frames and masks the rest, reverse sampling masks all
    but the first.
    """
    model, inputs, outputs = golden(shared, version)
    frames = channels_first(inputs["b_frames_bthwc"])
    mask = inputs[f"{case}_mask_bt"]
    feed = torch.cat([torch.ones(2, 5 - mask.shape[1]), mask], 1)
    said, decoupling = model(frames, feed)
    assert agree(said, channels_first(outputs[f"{case}_pred_bthwc"]))
    loss = (said - frames[:, 1:]).square().mean() + model.decouple * decoupling
    assert agree(loss, outputs[f"{case}_loss"])


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (24_559_616, {}),
        (4_763_648, {"layers": 3, "hidden": 64}),
        (24_576_000, {"decouple": 0.1}),
        (4_767_744, {"layers": 3, "hidden": 64, "decouple": 0.1}),
        (40_288_256, {"layer_norm": True}),
        (23_748_608, {"patch": 2}),
        (914_432, {"layers": 2, "hidden": 32}),
    ],
)
def test_published_sizes(count: int, sizes: dict):
    with torch.device("meta"):
        model = PredRNN(**PUBLISHED | sizes)
    assert sum(p.numel() for p in model.parameters()) == count


def test_without_a_past_much_of_it_cannot_learn():
    """SPEC 3.6: with one frame in, 38% of the default network's weights have a gradient of exactly
    zero.
    """
    torch.manual_seed(0)
    model = PredRNN(**PUBLISHED)
    frames = torch.rand(1, 3, 3, 16, 16)
    for feed, zeros in [(torch.ones(1, 1), 9_318_400), (torch.ones(1, 2), 0)]:
        said, _ = model(frames, feed)
        gradients = torch.autograd.grad(
            (said - frames[:, 1 : 1 + said.shape[1]]).square().mean(), [*model.parameters()]
        )
        assert sum(int((g == 0).sum()) for g in gradients) == zeros


def test_layer_norm_normalises_whole_maps():
    model = PredRNN(**SIZES, layer_norm=True)
    seen = []
    model.cells[0].x.register_forward_hook(lambda cell, args, out: seen.append(out))
    model(torch.rand(2, 1, 3, 16, 16), torch.ones(2, 1))
    assert seen[0].shape == (2, 56, 8, 8)
    assert torch.allclose(seen[0].mean((1, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(seen[0].var((1, 2, 3), correction=0), torch.ones(2), atol=1e-2)


def test_rates_of_the_published_schedules():
    at = (25_000, 50_000, 5_000)
    assert [keep_rates("scheduled", s, at) for s in (0, 1, 50_000)] == [
        (1, 1),
        (1, 1 - 2e-5),
        (1, 0),
    ]
    assert keep_rates("none", 10, at) == (1, 0)
    assert keep_rates("reverse", 24_999, at) == (0.5, 0.5)
    assert keep_rates("reverse", 25_001, at) == pytest.approx((0.5001, 0.49998), abs=1e-7)
    assert keep_rates("reverse", 30_000, at) == pytest.approx((1 - math.exp(-1) / 2, 0.4))
    assert keep_rates("reverse", 50_000, at) == (1, 0)


def test_what_is_fed_follows_the_rates():
    feed = draw_feed(3, 3, (0.8, 0.3), 4000, torch.Generator().manual_seed(0))
    assert feed.shape == (4000, 5) and set(feed.unique().tolist()) == {0, 1}
    assert feed.mean(0).tolist() == pytest.approx([1, 0.8, 0.8, 0.3, 0.3], abs=0.03)
    assert (feed[:, 1] * feed[:, 2]).mean().item() == pytest.approx(
        0.64, abs=0.03
    )  # each step by itself
    assert draw_feed(2, 2, (1, 0), 2, None).tolist() == [[1, 1, 0]] * 2


def batch_of(years: int, there: list[list[bool]]) -> dict:
    g = torch.Generator().manual_seed(years)
    size = len(there)
    valid = torch.rand(size, 1, 16, 16, generator=g) > 0.2
    shown = torch.tensor(there)[:, :, None, None, None]
    return {
        "rgb_t": torch.rand(size, 3, 16, 16, generator=g),
        "rgb_tp1": torch.rand(size, 3, 16, 16, generator=g),
        "valid_t": valid,
        "valid_tp1": valid.flip(0),
        "history_valid": torch.tensor(there),
        "history": (torch.rand(size, years, 3, 16, 16, generator=g) * 0.9 + 0.1) * shown,
    }


@pytest.mark.parametrize("sizes", [{}, {"decouple": 0.1, "layer_norm": True}])
def test_where_years_are_missing_the_recurrence_starts_later(sizes: dict):
    """A place without its oldest years, in a batch with another, is forecast as from the shorter
    clip.
    """
    torch.manual_seed(0)
    long, short = (PredRNN(**SIZES, **sizes, history=n) for n in (3, 1))
    for name, parameter in long.named_parameters():
        if name.endswith(
            "bias"
        ):  # of layer norm: what it makes of an absent, black year is not 0 then
            torch.nn.init.normal_(parameter)
    short.load_state_dict(long.state_dict())
    batch = batch_of(3, [[True, True, True], [True, False, False], [True, False, True]])
    said = long.forecast(batch, samples=2)
    alone = short.forecast(batch)
    assert said.shape == (2, 3, 3, 16, 16) and torch.equal(said[0], said[1])
    assert torch.allclose(said[0, 1:], alone[0, 1:], atol=1e-6) and not torch.allclose(
        said[0, 0], alone[0, 0]
    )
    mine = {name: value[1:2] for name, value in batch.items()}
    losses = [model.loss(mine, torch.Generator(), 0)[0] for model in (long, short)]
    assert torch.allclose(
        *losses
    )  # also of the decoupling: steps before the first year count nothing


def test_unknown_pixels_and_years_are_no_part_of_the_loss():
    torch.manual_seed(0)
    model = PredRNN(**SIZES, history=2)
    batch = batch_of(2, [[True, False], [True, True]])
    loss, parts = model.loss(batch, torch.Generator(), 0)
    blind = ~(batch["valid_t"] & batch["valid_tp1"])
    other = batch | {"rgb_tp1": torch.where(blind, 0.5, batch["rgb_tp1"])}
    assert torch.equal(model.loss(other, torch.Generator(), 0)[0], loss)
    assert not torch.equal(
        model.loss(batch | {"rgb_tp1": 1 - batch["rgb_tp1"]}, torch.Generator(), 0)[0], loss
    )
    assert torch.equal(loss, parts["mse"]) and not torch.equal(
        loss, parts["mse_tp1"]
    )  # what it says of year t counts, too
    judged, none = model.eval().loss(batch, torch.Generator(), 0)
    assert torch.allclose(judged, parts["mse_tp1"]) and none == {}


def test_reverse_sampling_hides_years_in_training_alone():
    torch.manual_seed(0)
    model = PredRNN(**SIZES, history=2, sampling="reverse")
    batch = batch_of(2, [[True, True], [True, False]])
    fed = []
    model.register_forward_hook(lambda model, args, out: fed.append(args[1]))
    for seed in range(40):
        model.loss(batch, torch.Generator().manual_seed(seed), 0)
    feeds = torch.stack(fed)  # (40,B,3)
    assert (feeds[:, :, 0] == 1).all() and 0.3 < feeds[:, 0, 1:].mean() < 0.7
    assert (feeds[:, 1, 1] == 1).all() and 0.3 < feeds[
        :, 1, 2
    ].mean() < 0.7  # it starts at year t-1: that is given
    model.loss(batch, torch.Generator(), 50_000)
    model.eval().loss(batch, torch.Generator(), 0)
    assert (torch.stack(fed[-2:]) == 1).all()


def test_gradients_are_finite_where_a_year_is_black():
    model = PredRNN(**SIZES, decouple=0.1, history=1)
    batch = batch_of(1, [[False], [True]])
    gradient = gradient_norm(
        model.loss(batch | {"rgb_t": torch.zeros(2, 3, 16, 16)}, torch.Generator(), 0)[0], model
    )
    assert math.isfinite(gradient)


def test_a_batch_with_fewer_years_is_refused():
    with pytest.raises(ValueError, match="4 years back"):
        PredRNN(**SIZES, history=4).forecast(batch_of(2, [[True, True]]))
