"""The walk of notebook 00: its world is the demo's, its batch the training's, and what it shows of
the model is what the model does.
"""

import numpy as np
import pytest
import torch
import yaml
from model_fixtures import *  # noqa: F403
from model_fixtures import make_batch

from satjepa.data.alphaearth import encode_alphaearth
from satjepa.demo.render import simulate
from satjepa.demo.world import Climate
from satjepa.figures import model as inside
from satjepa.models.drops import Drops
from satjepa.models.layers import Attention
from satjepa.models.losses import IJepaWeights
from satjepa.paths import root
from satjepa.pipeline import one_patch, watch


@pytest.fixture(scope="module")
def recipe() -> dict:
    return yaml.safe_load((root() / "assets/demo/world.yaml").read_text()) | {"size": 64}


@pytest.fixture(scope="module")
def cube(recipe):
    return one_patch.rendered(recipe, "Brannoch", last=2020)


def one(batch: dict) -> dict:
    """The first sample of a batch, as a batch."""
    first = {name: value[:1] for name, value in batch.items() if not isinstance(value, dict)}
    texts = {name: value for name, value in batch.items() if isinstance(value, dict)}
    return first | {name: {k: v[:1] for k, v in value.items()} for name, value in texts.items()}


def test_a_region_is_that_of_the_demo_world(cube, recipe):
    spec = {k: v for k, v in recipe["presets"]["strong"].items() if k != "parts"}
    seed, years = recipe["seed"], [2017, 2018, 2019, 2020]
    world = [*simulate(seed, "strong", "Brannoch", Climate(**spec), years, 64)]
    assert cube["year"].values.tolist() == years
    assert np.array_equal(cube["rgb"].values[3], world[3].rgb)
    assert np.array_equal(cube["emb"].values[2], encode_alphaearth(world[2].embedding))
    assert np.array_equal(cube["oracle_mean"].values[3], world[3].oracle_mean)
    assert np.array_equal(cube["process"].values[3], world[3].process)
    assert cube["has_truth"].values.tolist() == [False, True, True, True]


def test_the_batch_is_that_of_training(cube):
    batch = one_patch.batch_at(cube, 2019, 32, 0, patch=32, history=2)
    window = cube["rgb"].sel(year=[2019, 2020, 2018, 2017]).values[..., 0:32, 32:64] / 255
    shown = [batch["rgb_t"][0], batch["rgb_tp1"][0], *batch["history"][0]]
    for image, wanted in zip(shown, window, strict=True):
        assert np.allclose(image, wanted, atol=1e-6)
    assert batch["process"].shape == (1, 1, 32, 32) and "oracle_mean" in batch
    with pytest.raises(ValueError, match="corners every 16 pixels"):
        one_patch.batch_at(cube, 2020, 0, 0, patch=32, history=2)


def test_the_contents_name_every_tensor(cube):
    batch = one_patch.batch_at(cube, 2019, 0, 0, patch=32, history=2)
    text = {"hidden": torch.zeros(1, 3, 5, 8), "mask": torch.ones(1, 3, 5).bool()}
    table = one_patch.contents(batch | {"text_t": text})
    assert table.loc["rgb_t", "shape"] == "(1, 3, 32, 32)"
    assert table.loc["text_t.hidden", "shape"] == "(1, 3, 5, 8)"
    assert table.loc["text_t.mask", "dtype"] == "bool"
    assert (table["what it is"] != "").all()


def test_alphaearth_is_cut_where_the_patch_lies(cube, model):
    batch = one_patch.batch_at(cube, 2019, 32, 16, patch=32, history=2)
    after = one_patch.alphaearth(cube, batch, model, 1)
    fine = 4 * model.cells
    means = batch["emb_tp1"][0].unflatten(1, (fine, -1)).unflatten(3, (fine, -1)).mean((2, 4))
    assert torch.allclose(after, torch.nn.functional.layer_norm(means.permute(1, 2, 0), (64,))
                          .permute(2, 0, 1), atol=1e-4)  # fmt: skip


def test_the_averaged_weights_take_the_place_of_the_trained(model):
    model.average_weights(0.0)
    averages = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 1
    one_patch.use_average(model)
    for name, parameter in model.named_parameters():
        wanted = averages[name.replace("target_encoder.", "encoder.")]
        assert torch.equal(parameter, wanted), name
        assert not parameter.requires_grad


def test_the_rows_of_the_loss_add_up(model, step):
    scales = {"ijepa": 1.0, "readout": 5.0, "layout": 3.0, "sd": 2.0, "caption": 0.5}
    model.params.loss = type("Loss", (IJepaWeights,), scales)()
    loss, parts = step(model, make_batch(3))
    table = one_patch.loss_table(parts, model.params.loss)
    assert table["adds"].iloc[:-1].sum() == pytest.approx(loss.item(), rel=1e-5)
    assert table.loc["loss", "adds"] == pytest.approx(table.loc["loss", "value"], rel=1e-5)
    assert table.loc["caption.cosine", "weight"] == 0.25


def test_shapes_are_those_of_the_tensors(model, batch):
    said = inside.shapes(model)
    years = model.remember(batch)
    tokens, projected = model.predict(batch["rgb_t"], years)
    captions = model.foresee(batch, tokens)
    drops = Drops.all(tokens, False)
    context, _ = model.adapt(batch, tokens, projected, captions, drops, years)
    places, length = tokens.shape[1], captions["hidden"].shape[2]
    assert said["predictor"] == f"(B, {', '.join(map(str, tokens.shape[1:]))})"
    assert said["adapter"] == f"(B, {places} + {length}, {context.shape[-1]})"
    assert context.shape[1] == places + length
    latent = model.latent(batch)
    assert said["noise"] == f"(B, {', '.join(map(str, latent.shape[1:]))})"
    assert inside.absent(model) == []


def test_what_an_arm_lacks_is_absent(trained):
    blind = ["past years", "I-JEPA encoder", "predictor", "reader"]
    assert inside.absent(trained(use_jepa=False)) == blind
    assert {"caption forecaster", "reader"} <= {*inside.absent(trained(use_captions=False))}
    assert inside.absent(trained(reader=None)) == ["reader"]


# ---- looking into the model ----


def test_noted_attention_is_the_layers_own():
    torch.manual_seed(0)
    layer = Attention(8, 1)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[True, True, False, True, True], [True, False, False, False, False]])
    with watch.attention_of(layer) as noted, torch.no_grad():
        answer = layer(x, context, mask=mask)
        layer(x)
    assert [tuple(weights.shape) for weights in noted] == [(2, 3, 5), (2, 3, 3)]
    values = layer.kv(context).unflatten(-1, (2, 8))[:, :, 1]
    assert torch.allclose(layer.proj(noted[0] @ values), answer, atol=1e-5)
    assert torch.equal(noted[0][1], torch.eye(5)[:1].expand(3, 5))
    layer(x)
    assert len(noted) == 2, "nothing is noted outside"


def test_cells_lie_where_they_belong():
    """Patch 1 lies top right; its cell 1 is at row 0, column 3, its cell 2 at row 1, column 2."""
    vectors = torch.zeros(4, 4, 3)
    vectors[1, 1] = torch.tensor([1.0, 2.0, 3.0])
    vectors[1, 2] = torch.tensor([4.0, 5.0, 6.0])
    for form in (vectors, vectors.flatten(1)):
        drawn = watch.as_map(form, 3)
        assert drawn.shape == (3, 4, 4)
        assert drawn[:, 0, 3].tolist() == [1, 2, 3] and drawn[:, 1, 2].tolist() == [4, 5, 6]


def test_the_words_that_tell_places_apart():
    weights = torch.full((4, 6), 0.1)
    weights[:, 4] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    weights[:, 1] = torch.tensor([0.0, 0.0, 0.5, 0.5])
    weights[:, 2] = torch.tensor([0.0, 2.0, 0.0, 2.0])
    words = {"a": ["forest", "water", "."], "b": ["x", "road"]}
    maps = watch.listening(weights, words, (3, 3), 2)
    assert [*maps] == ["road\n(b, 1)", "water\n(a, 1)"], "full stops and padding are no words"
    assert maps["road\n(b, 1)"].tolist() == [[0, 1], [0, 1]]
    shorter = {"a": ["forest", "water"], "b": ["x", "y", "road"]}
    assert [*watch.listening(weights, shorter, (2, 4), 1)] == ["x\n(b, 0)"]


def test_many_steps_end_at_the_peaks_and_one_between_them():
    peaks = (-1.2, 1.2)
    for steps, away in ((1, 1.2), (50, 0.2)):
        levels, places = watch.toy_paths(steps, peaks, 0.1)
        assert levels[0] == 1 and levels[-1] == 0 and len(places) == steps + 1
        distance = (places[-1].abs() - 1.2).abs()
        assert distance.median() == pytest.approx(away, abs=0.15)
    assert (places[-1] > 0).float().mean() == pytest.approx(0.5, abs=0.1)


def test_the_toy_velocity_is_the_mean_of_the_straight_lines():
    """E[noise - x0 | z], by drawing many lines and keeping those that pass near z."""
    g = torch.Generator().manual_seed(0)
    count, sigma = 2_000_000, 0.6
    x0 = 0.3 * torch.randn(count, generator=g)
    x0 += torch.where(torch.rand(count, generator=g) < 0.5, -1.0, 1.0)
    noise = torch.randn(count, generator=g)
    z = (1 - sigma) * x0 + sigma * noise
    for place in (-0.5, 0.0, 0.8):
        near = (z - place).abs() < 0.01
        said = watch.toy_velocity(
            torch.full((1, 1, 1, 1), place), torch.tensor([sigma]), (-1.0, 1.0), 0.3
        )
        assert said.item() == pytest.approx((noise - x0)[near].mean().item(), abs=0.03)


def test_a_clean_latent_is_what_it_is_and_noise_is_answered(model, batch):
    patch = one(batch)
    conditions = model.condition(patch)
    x0 = model.latent(patch)
    rows = watch.denoised(model, conditions, [x0, torch.randn_like(x0)], [0.0, 1.0])
    assert torch.equal(rows["z(σ)"][0], rows["z - σ v"][0])
    assert not torch.equal(rows["z(σ)"][1], rows["z - σ v"][1])
    assert torch.equal(rows["z(σ)"][0], model.backbone.decode(x0)[0])


def test_only_the_sampler_that_starts_from_the_image_sees_it(model, batch):
    model.with_sampling = lambda **changes: _with(model, **changes)
    panels, changes = watch.blinded(model, one(batch), torch.rand(1, 3, 32, 32), seed=0)
    assert changes["largest change, from noise"] == 0
    assert changes["largest change, from the image"] > 0.01
    assert torch.equal(panels["from noise,\nbefore"], panels["from noise,\nafter"])
    assert not torch.equal(panels["from the image,\nbefore"], panels["from the image,\nafter"])


def test_one_step_shows_how_far_the_answer_is(model, batch):
    model.params.sample.strength = 0.35
    shown = watch.one_step(model, batch, seed=0)
    answer = shown["its answer"]
    assert torch.allclose(shown["answer\nagainst truth"], (answer - batch["rgb_tp1"]).abs().mean(1))
    assert shown["answer\nagainst year t"].shape == (4, 32, 32)
    model.params.sample.strength = 1e-6
    start = model.backbone.decode(model.backbone.encode(batch["rgb_t"]))
    assert torch.allclose(watch.one_step(model, batch, 0)["where it\nstarts"], start, atol=1e-3)


def _with(model, **changes):
    """`with_sampling` for the plain parameters of the fixtures."""
    import copy

    other = copy.copy(model)
    other.params = copy.copy(model.params)
    other.params.sample = copy.copy(model.params.sample)
    vars(other.params.sample).update(changes)
    other.__dict__.pop("with_sampling", None)
    return other
