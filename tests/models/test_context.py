"""What stands in SD 3's context: as many words as the captions have, as many tokens as it needs."""

from pathlib import Path

import pytest
import torch
from model_fixtures import LENGTH, make_batch, params, with_lora

from satjepa.models.caption_tensors import fitted
from satjepa.models.drops import Drops
from satjepa.models.satjepa import SatJepa

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def build(parts, lengths=None, merge=1, layout=True, **model):
    """A SatJepa whose zero layers have opened, of given lengths."""
    settings = params(**model, context_merge=merge)
    settings.captions.lengths = lengths
    made = SatJepa(settings, with_lora(parts, 1), parts[2], parts[3] if layout else None)
    torch.manual_seed(2)
    for parameter in made.parameters():
        if parameter.requires_grad and not parameter.any():
            torch.nn.init.normal_(parameter.data, std=0.1)
    return made.eval()


def padded(batch, length):
    """The same batch with captions padded to another length."""
    return batch | {name: fitted(batch[name], length) for name in ("text_t", "text_tp1")}


def test_context_has_the_words_of_the_semantic_caption_alone(parts, batch):
    model = build(parts, lengths=(6, 5, 3))
    context = model.condition(batch).context
    assert context.shape[1] == 16 + 3
    more = batch["text_t"]["hidden"].clone()
    more[:, 2, 3:] = 7.0  # past what is read
    changed = batch | {"text_t": batch["text_t"] | {"hidden": more}}
    assert torch.equal(model.condition(changed).context, context)
    more[:, 0, 0] = 7.0  # informative: read by the adapter
    assert not torch.equal(model.condition(changed).context[:, :16], context[:, :16])


@pytest.mark.parametrize("lengths", [None, (4, 5, 3)])
def test_it_does_not_matter_how_far_a_batch_is_padded(parts, batch, lengths, step):
    """To rounding: kernels sum in another order; in float32, 1e-5 of the loss, 1e-6 of RGB."""
    model = build(parts, lengths)
    reference = model.forecast(batch, 1)
    loss = step(model, batch)[0]
    for length in (LENGTH + 3, 40):
        longer = padded(batch, length)
        torch.testing.assert_close(model.forecast(longer, 1), reference, atol=1e-6, rtol=0)
        torch.testing.assert_close(step(model, longer)[0], loss, atol=0, rtol=1e-5)
    other = batch | {"text_t": batch["text_t"] | {"mask": batch["text_t"]["mask"] & False}}
    other["text_t"]["mask"][:, :, 0] = True
    assert (model.forecast(other, 1) - reference).abs().max() > 1e-4  # words do count


def test_informative_and_geometric_words_beyond_the_longest_change_nothing(parts):
    """Trimmed to the longest of each kind against all L positions: they are masked; 1e-6 of RGB."""
    batch = make_batch(5)
    batch["text_t"]["mask"][:, 0, 3:] = False
    batch["text_t"]["mask"][:, 1, 4:] = False
    plain = build(parts)
    trimmed = build(parts, lengths=(3, 4, LENGTH))
    trimmed.load_state(
        {
            name: value[: trimmed.state()[name].shape[0]] if "empty_" in name else value
            for name, value in plain.state().items()
        }
    )
    torch.testing.assert_close(
        trimmed.forecast(batch, 1), plain.forecast(batch, 1), atol=1e-6, rtol=0
    )
    wrong = build(parts, lengths=(2, 4, LENGTH))
    wrong.load_state(plain.state())
    assert (wrong.forecast(batch, 1) - plain.forecast(batch, 1)).abs().max() > 1e-6


def test_merged_tokens_of_the_context_read_all_locations(parts, batch):
    model = build(parts, merge=2, layout=False)
    plain = model.condition(batch).context
    assert plain.shape[1] == 4 + LENGTH
    tokens = torch.randn(4, 16, 16)
    captions = model.foresee(batch, tokens)
    drops = Drops.all(tokens, False)

    def context(tokens):
        emb = torch.zeros(4, 16, 64)
        return model.adapter(tokens, emb, captions, drops)[0][:, :4]

    base = context(tokens)
    for place, token in ((0, 0), (5, 0), (6, 1), (15, 3)):  # rows of four locations, squares of two
        other = tokens.clone()
        other[:, place] += 3 * torch.randn(16)
        moved = (context(other) - base).abs().amax((0, 2)) > 1e-6
        assert moved[token] and moved.sum() == 1
    with pytest.raises(ValueError, match="context_merge is 1"):
        build(parts, merge=2)


def test_a_training_sample_costs_at_most_1_2_tflop_at_the_published_sizes(monkeypatch):
    """Counted by PyTorch on the meta device, with captions of 48 words; 0.90. Untrimmed and
    unmerged it is 2.2.
    """
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from full_size_models import flops_on_meta

    assert flops_on_meta("ours") == pytest.approx(0.90, abs=0.02)
    assert flops_on_meta("untrimmed") == pytest.approx(2.19, abs=0.02)
