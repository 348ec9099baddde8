"""The published metrics against the golden vectors g and j, and what sets them apart from ours."""

import json
import math

import pytest
import torch
from published_log import as_unit, ssim_loss, train_metrics
from safetensors.torch import load_file

from satjepa.metrics import pixels as metrics
from satjepa.published.caption_metrics import caption_metrics, pair_scores, words_of

CASES = ["noise", "structured_shift", "flat_identical", "signed_pred"]


@pytest.fixture
def images(shared):
    return load_file(shared / "reference/golden/g_image_metrics.safetensors")


@pytest.fixture
def captions(shared):
    return json.loads((shared / "reference/golden/j_caption_metrics.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_images_are_scored_as_in_the_published_log_and_loss(images, case):
    pred = images[f"{case}.pred"]
    target = images[f"{case}.target"]
    ours = train_metrics(pred, target)
    assert ours == pytest.approx(
        {n: images[f"out.train_metrics.{case}.batch.{n}"].item() for n in ours}, abs=1e-5
    )
    assert ssim_loss(pred, target) == pytest.approx(
        images[f"out.sd_joint_loss.{case}.ssim_loss"].item(), abs=1e-5
    )


def test_a_range_is_guessed_from_the_whole_tensor():
    assert as_unit(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 0.5, 1]
    assert as_unit(torch.tensor([-2.0, 0.25, 1.0])).tolist() == [0, 0.25, 1]
    assert as_unit(torch.tensor([0.25, 1.0])).tolist() == [0.25, 1]
    assert as_unit(torch.tensor([-1.0, 1.002])).tolist() == [0, 1]


def test_the_two_published_gssims_are_different_quantities(images):
    pred = images["structured_shift.pred"]
    target = images["structured_shift.target"]
    of_gradients = metrics.gssim(pred, target, per_tensor=True).mean().item()
    assert abs(train_metrics(pred, target)["gssim"] - of_gradients) > 0.01


@pytest.mark.parametrize("kind", ["whitespace", "treebank_like"])
def test_captions_are_scored_as_published(captions, kind):
    pairs = captions["pairs_pred_ref"]
    known = captions[kind]["per_pair"]
    tokens = {}
    for (pred, ref), row in zip(pairs, known, strict=True):
        tokens |= {pred: row["pred_tokens"], ref: row["ref_tokens"]}
        ours = pair_scores(row["pred_tokens"], row["ref_tokens"])
        assert ours == pytest.approx({name: row[name] for name in ours}, abs=1e-12)
    means = captions[kind]["compute_caption_metrics"]
    assert caption_metrics(pairs, tokens.__getitem__) == pytest.approx(means, abs=1e-12)


def test_captions_are_cut_at_white_space_by_default_and_nothing_scores_zero(captions):
    means = captions["whitespace"]["compute_caption_metrics"]
    assert caption_metrics(captions["pairs_pred_ref"]) == pytest.approx(means, abs=1e-12)
    assert words_of(" A dense\tURBAN area.") == ["a", "dense", "urban", "area."]
    assert caption_metrics([]) == captions["empty_list"]


def test_bleu_is_of_one_order_with_a_penalty_for_brevity():
    scores = pair_scores(["a", "a", "b"], ["a", "b", "c", "d"])
    penalty = math.exp(1 - 4 / 3)
    assert [scores[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(
        [penalty * 2 / 3, penalty / 2, 0, 0]
    )
