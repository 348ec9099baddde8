"""Adapter: starts as the pre-trained layout + text, blind to padding, remembers the same place,
drops per sample.
"""

import pytest
import torch

from satjepa.models.adapter import Adapter
from satjepa.models.drops import Drops
from satjepa.models.jepa import sincos_2d

B = 4
GRID = 3
LENGTH = 5
JOINT = 12
POOLED = 6
TOKEN = 8
YEARS = 2
N = GRID**2


def make(**options):
    torch.manual_seed(0)
    empty = {
        "hidden": torch.randn(LENGTH, JOINT) * (torch.arange(LENGTH) < 1)[:, None],
        "mask": torch.arange(LENGTH) < 1, "pooled": torch.randn(POOLED),
    }  # fmt: skip
    return Adapter(
        TOKEN, sincos_2d(8, GRID), empty, dim=16, layers=2, heads=2, history=YEARS, **options
    )


def opened(adapter):
    """As after training: what was zero at the start has opened."""
    torch.manual_seed(1)
    for parameter in adapter.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter.data, std=0.1)
    return adapter


@pytest.fixture
def inputs():
    torch.manual_seed(2)
    mask = torch.arange(LENGTH) < torch.randint(1, LENGTH, (B, 3, 1))
    captions = {
        "hidden": torch.randn(B, 3, LENGTH, JOINT),
        "mask": mask,
        "pooled": torch.randn(B, 3, POOLED),
    }
    return {
        "tokens": torch.randn(B, N, TOKEN), "emb": torch.randn(B, N, 64), "captions": captions,
        "drops": Drops.all(mask, False),
        "history": (torch.randn(B, YEARS, N, TOKEN), torch.tensor([[1, 1], [1, 0], [0, 0], [0,
        1]]).bool()),
    }  # fmt: skip


def same(a, b, rows=slice(None)):
    return all(torch.equal(x[rows], y[rows]) for x, y in zip(a, b, strict=True))


def test_starts_as_the_warm_start_and_the_semantic_caption(inputs):
    adapter = make()
    layout = {f"{name}.{key}": torch.randn_like(value) for name, layer in
              (("embedding", adapter.layout), ("position", adapter.position))
              for key, value in layer.state_dict().items()}  # fmt: skip
    adapter.warm_start(layout)
    context, pooled = adapter(**inputs)
    what = inputs["emb"] @ layout["embedding.weight"].T + layout["embedding.bias"]
    where = adapter.positions @ layout["position.weight"].T + layout["position.bias"]
    words = inputs["captions"]["hidden"][:, 2] * inputs["captions"]["mask"][:, 2, :, None]
    torch.testing.assert_close(context, torch.cat([what + where, words], 1))
    assert torch.equal(pooled, inputs["captions"]["pooled"][:, 2])


def test_padded_text_changes_nothing_bit_for_bit(inputs):
    adapter = opened(make())
    captions = inputs["captions"]
    padded = captions | {
        "hidden": torch.where(captions["mask"][..., None], captions["hidden"], 1e4)
    }
    assert same(adapter(**inputs), adapter(**inputs | {"captions": padded}))


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_every_stream_is_read_at_every_location(inputs, stream):
    adapter = opened(make())
    captions = inputs["captions"]
    hidden = captions["hidden"].clone()
    hidden[:, stream] = hidden[:, stream].flip(-1)
    a = adapter(**inputs)[0]
    b = adapter(**inputs | {"captions": captions | {"hidden": hidden}})[0]
    assert ((a - b)[:, :N].abs().amax(-1) > 1e-6).all()


def test_streams_are_told_apart(inputs):
    """The same words in another stream mean something else (the published adapter has no
    stream-type embedding).
    """
    adapter = opened(make())
    captions = inputs["captions"]
    swapped = {name: value[:, [1, 0, 2]] for name, value in captions.items()}
    a = adapter(**inputs)[0]
    b = adapter(**inputs | {"captions": swapped})[0]
    assert ((a - b)[:, :N].abs().amax((1, 2)) > 1e-4).all()


def test_pooled_vector_reads_tokens_and_the_other_two_pooled_vectors(inputs):
    adapter = opened(make())
    base = adapter(**inputs)[1]
    for stream in (0, 1):
        pooled = inputs["captions"]["pooled"].clone()
        pooled[:, stream] += 1
        changed = adapter(**inputs | {"captions": inputs["captions"] | {"pooled": pooled}})[1]
        assert ((changed - base).abs() > 1e-5).any()
    assert not torch.equal(adapter(**inputs | {"tokens": inputs["tokens"].flip(-1)})[1], base)


def test_without_history_it_has_exactly_no_effect(inputs):
    """Sample 2 has no past year: whatever its history holds, it is as if there were no temporal
    attention at all.
    """
    adapter = opened(make())
    a = adapter(**inputs)
    b = adapter(**inputs | {"history": None})
    assert same(a, b, rows=[2]) and not same(a, b, rows=[0])


def test_history_at_the_start_changes_nothing_and_once_open_it_does_by_year_and_place(inputs):
    years, valid = inputs["history"]
    assert same(make()(**inputs), make()(**inputs | {"history": None}))
    adapter = opened(make())
    base = adapter(**inputs)[0]
    for row, year, counts in ((0, 0, True), (0, 1, True), (1, 1, False), (3, 0, False)):
        other = years.clone()
        other[row, year] = other[row, year].flip(-1)
        changed = not torch.equal(
            adapter(**inputs | {"history": (other, valid)})[0][row], base[row]
        )
        assert changed == counts, f"row {row}, lag {year + 1}"
    swapped = adapter(**inputs | {"history": (years.flip(1), valid)})[0]
    assert not torch.allclose(swapped[0], base[0], atol=1e-5)  # the lag embedding tells years apart
    moved = years.clone()
    moved[0, :, 4] += torch.randn(TOKEN)
    where = (adapter(**inputs | {"history": (moved, valid)})[0] - base)[0].abs().amax(-1)
    assert where.nonzero().flatten().tolist() == [
        4
    ]  # the past of location 4 is read at location 4 only


def test_history_is_trained_once_the_gate_opens(inputs):
    adapter = opened(make())
    adapter(**inputs)[0][:, :N].square().sum().backward()
    unmoved = [
        name
        for name, p in adapter.temporal.named_parameters()
        if p.grad is None or not p.grad.any()
    ]
    assert not unmoved


def test_drops_are_per_sample(inputs):
    adapter = opened(make())
    base = adapter(**inputs)
    text = torch.tensor([1, 0, 0, 1]).bool()
    tokens = torch.tensor([0, 1, 0, 1]).bool()
    drops = Drops.all(text, False)._replace(text=text, tokens=tokens)
    dropped = adapter(**inputs | {"drops": drops})
    assert same(base, dropped, rows=[2])
    assert not any(same(base, dropped, rows=[row]) for row in (0, 1, 3))
    # what is dropped has no effect any more: other captions for 0, other tokens, vectors and past
    # for 1, all for 3
    captions = {name: value.clone() for name, value in inputs["captions"].items()}
    other = inputs | {"tokens": inputs["tokens"].clone(), "emb": inputs["emb"].clone(),
    "captions": captions,
                      "history": (inputs["history"][0].clone(), inputs["history"][1])}  # fmt: skip
    for value in captions.values():
        value[text] = value[2].clone()
    for value in (other["tokens"], other["emb"], other["history"][0]):
        value[tokens] = value[2].flip(-1)
    assert same(dropped, adapter(**other | {"drops": drops}))
    assert not same(base, adapter(**other), rows=[0]) and not same(base, adapter(**other), rows=[1])


@pytest.mark.parametrize(
    ("quarter", "rows", "columns"),
    [(0, slice(None, 1), slice(None, 1)), (1, slice(None, 1), slice(1, None)),
     (2, slice(1, None), slice(None, 1)), (3, slice(1, None), slice(1, None))],
)  # fmt: skip
def test_a_hidden_quarter_knows_nothing_of_its_tokens(inputs, quarter, rows, columns):
    """Northwest, northeast, southwest, southeast; what is told apart is its own tokens, vectors and
    past, and no other place's.
    """
    adapter = opened(make())
    quarters = torch.zeros(B, 4, dtype=torch.bool)
    quarters[0, quarter] = True
    hiding = {"drops": Drops.all(quarters, False)._replace(quarters=quarters)}
    inside = torch.zeros(GRID, GRID, dtype=torch.bool)
    inside[rows, columns] = True
    inside = inside.flatten()
    dropped = adapter(**inputs | hiding)
    assert same(adapter(**inputs), dropped, rows=[1, 2, 3])
    other = inputs | {"tokens": inputs["tokens"].clone(), "emb": inputs["emb"].clone(),
                      "history": (inputs["history"][0].clone(), inputs["history"][1])}  # fmt: skip
    for value in (other["tokens"], other["emb"], other["history"][0].transpose(1, 2)):
        value[0, inside] = value[1, inside].flip(-1)
    assert not same(adapter(**inputs), adapter(**other), rows=[0])
    assert same(dropped, adapter(**other | hiding))
    places = (dropped[0] != adapter(**inputs)[0])[0, :N].any(-1)
    assert torch.equal(places, inside)


def test_a_dropped_caption_is_the_empty_text(inputs):
    adapter = opened(make())
    drops = Drops.all(inputs["tokens"], False)._replace(text=torch.ones(B).bool())
    dropped = adapter(**inputs | {"drops": drops})
    empty = {name: getattr(adapter, f"empty_{name}") for name in ("hidden", "mask", "pooled")}
    spoken = {name: value.expand(B, 3, *value.shape) for name, value in empty.items()}
    assert same(dropped, adapter(**inputs | {"captions": spoken}))


def test_coarse_rgb_is_silent_at_the_start_then_local_and_dropped_with_the_tokens(inputs):
    coarse = torch.rand(B, 3, 6, 6)
    start = make(coarse_rgb=6)
    assert same(start(**inputs), start(**inputs, coarse=coarse))
    adapter = opened(start)
    other = coarse.clone()
    other[0, :, :2, 2:4] = 0  # the pixels of location 1
    moved = (
        (adapter(**inputs, coarse=coarse)[0] - adapter(**inputs, coarse=other)[0])[0].abs().amax(-1)
    )
    assert moved.nonzero().flatten().tolist() == [1]
    inputs = inputs | {"drops": Drops.all(coarse, True)}
    assert same(adapter(**inputs, coarse=coarse), adapter(**inputs, coarse=other))
