"""Caption forecaster: identity at the start, blind to padding, moved by the tokens of t+1 once
trained.
"""

import pytest
import torch

from satjepa.models.caption_forecaster import CaptionForecaster

LENGTH = 6
TEXT = 10
POOLED = 8
TOKEN = 12


@pytest.fixture
def forecaster():
    torch.manual_seed(0)
    return CaptionForecaster(LENGTH, TEXT, POOLED, TOKEN, dim=16, layers=2, heads=2)


@pytest.fixture
def trained(forecaster):
    """As after training: the zero layers have opened."""
    for layer in (forecaster.delta, forecaster.change):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return forecaster


@pytest.fixture
def caption():
    torch.manual_seed(1)
    mask = torch.arange(LENGTH) < torch.tensor([[4], [6], [1]])
    return {
        "hidden": torch.randn(3, LENGTH, TEXT) * mask[..., None],
        "mask": mask,
        "pooled": torch.randn(3, POOLED),
    }


@pytest.fixture
def tokens():
    return torch.randn(3, 5, TOKEN, generator=torch.Generator().manual_seed(2))


def test_starts_as_the_identity_bit_for_bit(forecaster, caption, tokens):
    out = forecaster(caption, tokens)
    assert torch.equal(out["hidden"], caption["hidden"]) and torch.equal(
        out["pooled"], caption["pooled"]
    )
    assert out["mask"].all()


def test_padding_changes_nothing_bit_for_bit(trained, caption, tokens):
    padded = caption | {"hidden": torch.where(caption["mask"][..., None], caption["hidden"], 1e4)}
    clean = trained(caption, tokens)
    dirty = trained(padded, tokens)
    assert torch.equal(clean["hidden"], dirty["hidden"]) and torch.equal(
        clean["pooled"], dirty["pooled"]
    )


def test_what_is_asked_past_the_end_does_not_touch_the_words(trained, caption, tokens):
    """The positions past the end of the caption are asked, but nobody listens to them."""
    before = trained(caption, tokens)
    with torch.no_grad():
        trained.positions[:, 4:] += torch.randn(16)
    after = trained(caption, tokens)
    assert torch.equal(before["hidden"][0, :4], after["hidden"][0, :4])
    assert torch.equal(before["pooled"][0], after["pooled"][0])
    assert not torch.equal(before["hidden"][0, 4:], after["hidden"][0, 4:])


def test_every_position_and_the_pooled_vector_follow_the_tokens(trained, caption, tokens):
    """Past the end of the caption of t too: that of t+1 may be longer."""
    a = trained(caption, tokens)
    b = trained(caption, tokens.flip(0))
    assert ((a["hidden"] - b["hidden"]).abs().amax(-1)[[0, 2]] > 1e-4).all()
    assert ((a["pooled"] - b["pooled"]).abs().amax(-1)[[0, 2]] > 1e-4).all()


def test_positions_past_the_end_differ_by_their_learned_position(trained, caption, tokens):
    silent = trained(caption, tokens)["hidden"][0, 4:]
    assert not torch.allclose(silent[0], silent[1], atol=1e-4)


def test_the_past_hidden_states_and_pooled_vector_both_inform_the_forecast(
    trained, caption, tokens
):
    base = trained(caption, tokens)["hidden"] - caption["hidden"]
    for name in ("hidden", "pooled"):
        changed = caption | {name: caption[name].flip(-1)}
        assert not torch.allclose(
            trained(changed, tokens)["hidden"] - changed["hidden"], base, atol=1e-4
        )


def test_it_learns_a_change_that_only_the_tokens_tell(forecaster, caption, tokens):
    """Goal: the caption plus a shift along one of two directions, told apart by the tokens
    alone.
    """
    caption = {name: value[1:2].expand(2, *value.shape[1:]) for name, value in caption.items()}
    goal = caption["hidden"] + torch.tensor([1.0, -1.0])[:, None, None]
    optimizer = torch.optim.Adam(forecaster.parameters(), 1e-2)
    first = None
    for _ in range(60):
        loss = (forecaster(caption, tokens[:2])["hidden"] - goal).square().mean()
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first == pytest.approx(1) and loss < 0.1
