"""The reader: words of the coming year put in their place, and nothing else moved."""

import pytest
import torch

from satjepa.contracts import SEMANTIC
from satjepa.models.drops import Drops
from satjepa.models.reader import Reader, layout_loss, normed

PLACES, CELLS, LENGTH, TEXT, DIM = 16, 2, 6, 24, 16
WIDTH = 64 * CELLS**2


@pytest.fixture
def reader() -> Reader:
    torch.manual_seed(0)
    return Reader(32, torch.randn(PLACES, 8), LENGTH, TEXT, CELLS, DIM, 1, 2)


@pytest.fixture
def opened(reader: Reader) -> Reader:
    """As after training: what it changes is not zero."""
    torch.nn.init.normal_(reader.change.weight, std=0.1)
    return reader


@pytest.fixture
def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    mask = torch.arange(LENGTH) < torch.tensor([[4], [6], [1]])
    sizes = ((3, PLACES, 32), (3, PLACES, WIDTH), (3, LENGTH, TEXT))
    return *(torch.randn(size) for size in sizes), mask


def test_at_the_start_it_says_what_it_was_told(reader: Reader, inputs: tuple) -> None:
    assert torch.equal(reader(*inputs), normed(inputs[1]))


def test_each_vector_is_layer_normed_by_itself(opened: Reader, inputs: tuple) -> None:
    vectors = opened(*inputs).unflatten(-1, (-1, 64))
    torch.testing.assert_close(
        vectors.mean(-1), torch.zeros(3, PLACES, CELLS**2), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        vectors.var(-1, unbiased=False), torch.ones(3, PLACES, CELLS**2), atol=1e-3, rtol=0
    )


def test_words_move_the_layout_of_their_own_sample_and_their_order_counts(
    opened: Reader, inputs: tuple
) -> None:
    tokens, layout, hidden, mask = inputs
    before = opened(*inputs)
    other = hidden.clone()
    other[0, 1] = torch.randn(TEXT)
    moved = (opened(tokens, layout, other, mask) - before).abs().amax((1, 2))
    assert moved[0] > 1e-3 and not moved[1:].any()
    turned = hidden.clone()
    turned[1] = hidden[1].flip(0)
    moved = (opened(tokens, layout, turned, mask) - before).abs().amax((1, 2))
    assert moved[1] > 1e-3


def test_padding_is_never_read(opened: Reader, inputs: tuple) -> None:
    tokens, layout, hidden, mask = inputs
    other = torch.where(mask[..., None], hidden, torch.full_like(hidden, 7.0))
    torch.testing.assert_close(opened(tokens, layout, other, mask), opened(*inputs))


def test_no_gradient_flows_to_tokens_or_caption(opened: Reader, inputs: tuple) -> None:
    """Nor to the layout but by the sum: to what a place says of itself, none from other places."""
    tokens, layout, hidden, mask = inputs
    leaves = [x.clone().requires_grad_() for x in (tokens, layout, hidden)]
    opened(*leaves, mask)[:, 0].square().mean().backward()
    assert leaves[0].grad is None and leaves[2].grad is None
    assert not leaves[1].grad[:, 1:].any()


def test_layout_loss_is_the_mean_squared_error_of_what_is_known() -> None:
    vectors = torch.zeros(1, 2, 4, 64)
    layout = torch.zeros(1, 2, 256)
    layout[0, 0, :64] = 2.0  # the first vector is off by 2 in every band
    layout[0, 1, 64:128] = 9.0
    weight = torch.ones(1, 2, 4)
    weight[0, 1, 1] = 0.0  # unknown: off by 9, and not counted
    loss, parts = layout_loss(layout, vectors, weight)
    assert loss.item() == pytest.approx(4 / 7) and parts["mse"] == loss
    assert layout_loss(layout, vectors, torch.zeros(1, 2, 4))[0] == 0


def test_a_mute_sample_is_told_the_empty_text(trained, batch) -> None:
    """Whatever its caption says; the others are read as before."""
    model = trained()
    tokens, projected = model.predict(batch["rgb_t"], model.remember(batch))
    mute = torch.tensor([True, False, False, False])
    told, other = (model.semantic(batch[name]) for name in ("text_tp1", "text_t"))
    said, again = (model.read(tokens, projected, text, mute) for text in (told, other))
    assert torch.equal(said[0], again[0]) and not torch.equal(said[1:], again[1:])
    silence = model.semantic(model.adapter.silence(len(mute)))
    assert torch.equal(said[0], model.read(tokens, projected, silence, ~mute)[0])
    assert not torch.equal(said[0], model.read(tokens, projected, told, ~mute)[0])


def test_a_model_without_reader_keeps_its_layout(trained, batch) -> None:
    model = trained(reader=None)
    tokens, projected = model.predict(batch["rgb_t"], model.remember(batch))
    told = model.semantic(batch["text_tp1"])
    none = Drops.all(tokens, False).text
    assert torch.equal(model.read(tokens, projected, told, none), normed(projected))
    assert not any(name.startswith("reader") for name in model.state())


def test_a_given_caption_reaches_the_layout_that_is_drawn(trained, batch) -> None:
    """Its words, read into the context of the places: not those of the caption alone."""
    model = trained()
    given = {"text_given": batch["text_tp1"], "is_given": torch.zeros(4, 3, dtype=torch.bool)}
    given["is_given"][1, SEMANTIC] = True
    led, free = (model.condition(batch | more).context for more in (given, {}))
    places = len(model.adapter.positions)
    without = trained(reader=None)
    assert not torch.equal(led[1, :places], free[1, :places])
    assert torch.equal(led[0], free[0])
    assert [name for name in model.state() if name not in without.state()]
