"""The caption writer: what it looks at, how it draws, and members led by what it wrote."""

import math

import pytest
import torch
from model_fixtures import LENGTH, TEXT, make_batch

from satjepa.contracts import SEMANTIC
from satjepa.models.caption_writer import CaptionWriter, WriterSizes, chosen, have_ended
from satjepa.models.led import Led, known, led_by, place_uniform

SIZES = WriterSizes(
    vocabulary=11, length=7, read=LENGTH, text_dim=TEXT, places=16, token_dim=16, start=0, end=1,
    dim=16, layers=2, heads=2,
)  # fmt: skip


@pytest.fixture
def writer():
    torch.manual_seed(4)
    made = CaptionWriter(SIZES).eval()
    torch.nn.init.normal_(made.words.weight, std=0.5)  # untrained, but not shy
    return made.requires_grad_(False)


@pytest.fixture
def told(model, batch):
    return known(model, batch, LENGTH)


def spell(ids):
    return [" ".join(str(i) for i in row.tolist() if i > 1) for row in ids]


def embed(three):
    """Vectors of texts by their characters."""
    hidden = torch.zeros(len(three), 3, LENGTH, TEXT)
    for n, texts in enumerate(three):
        for k, text in enumerate(texts):
            for i, letter in enumerate(text):
                hidden[n, k, i % LENGTH, ord(letter) % TEXT] += 3
    return {"hidden": hidden, "mask": torch.ones(hidden.shape[:3], dtype=torch.bool),
            "pooled": hidden.sum(2)}  # fmt: skip


def test_a_word_is_said_from_those_before_it_alone(writer, told):
    ids = torch.randint(2, 11, (4, 7), generator=torch.Generator().manual_seed(0))
    before = writer(ids, *told)
    later = ids.clone()
    later[:, 3] = (ids[:, 3] - 1) % 9 + 2
    after = writer(later, *told)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4] - after[:, 4]).abs().max() > 1e-3


def test_it_listens_to_words_and_to_tokens_but_not_to_padding(writer, told):
    caption, tokens = told
    ids = torch.full((4, 7), 5)
    plain = writer(ids, caption, tokens)
    hidden = caption["hidden"] + 5 * ~caption["mask"][..., None]
    assert torch.equal(writer(ids, caption | {"hidden": hidden}, tokens), plain)
    assert (
        writer(ids, caption | {"hidden": caption["hidden"] + 1}, tokens) - plain
    ).abs().max() > 0
    assert (writer(ids, caption, tokens.flip(1)) - plain).abs().max() > 1e-3


def test_the_likeliest_caption_is_that_of_the_teacher_forced_words(writer, told):
    """Word by word with what was read kept, and all words at once: the same."""
    ids = writer.write(writer.study(*told))
    logits = writer(ids, *told)
    logits[..., SIZES.start] = -math.inf
    over = (ids == SIZES.end).cumsum(1) - (ids == SIZES.end).int() > 0  # after the end
    assert torch.equal(ids[~over], logits.argmax(-1)[~over])
    assert (ids[over] == SIZES.start).all()


def test_a_caption_ends_or_is_cut(writer, told):
    with torch.no_grad():
        writer.words.weight[SIZES.end] = 50 * writer.norm.weight
        writer.norm.bias += 1
    ids = writer.write(writer.study(*told))
    assert ids[:, 0].eq(SIZES.end).all() and ids[:, 1:].eq(SIZES.start).all()
    assert have_ended(ids, SIZES.end) == [True] * 4
    assert have_ended(torch.full((2, 7), 3), SIZES.end) == [False, False]


def test_words_are_drawn_as_often_as_they_are_likely():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    uniform = (torch.arange(2000) + 0.5) / 2000
    rows = logits.expand(2000, 4)
    assert torch.bincount(chosen(rows, uniform, 1.0, 1.0)).tolist() == [1000, 600, 300, 100]
    assert torch.bincount(chosen(rows, uniform, 1.0, 0.79)).tolist() == [1250, 750]
    assert chosen(rows, uniform, 1.0, 1e-6).eq(0).all()
    squared = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    drawn = torch.bincount(chosen(rows, uniform, 0.5, 1.0)) / 2000
    assert torch.allclose(drawn, squared / squared.sum(), atol=2e-3)
    assert chosen(rows[:1], torch.tensor([1.0]), 1.0, 0.6).item() == 1, "the last that is kept"


def test_the_loss_is_of_words_that_exist(writer, told):
    ids = torch.tensor([[4, 5, 1, 0, 0, 0, 0]] * 4)
    loss = writer.loss(ids, ids != 0, *told)
    logp = writer(ids, *told).log_softmax(-1)
    mean = -logp.gather(-1, ids[..., None])[:, :3].mean()
    assert loss.item() == pytest.approx(mean.item(), rel=1e-5)


def test_a_caption_belongs_to_seed_member_and_place(model, writer, batch):
    led = Led(model, writer, embed, spell, 1.0, 1.0)
    sentences = led.write(batch, 3, seed=5)
    assert len(sentences) == 3 and len(sentences[0]) == 4
    assert sentences[0] != sentences[1], "a member draws its own"
    one = {k: v[2:3] for k, v in batch.items() if not isinstance(v, dict)}
    one["text_t"] = {k: v[2:3] for k, v in batch["text_t"].items()}
    assert [texts[2] for texts in sentences] == [texts[0] for texts in led.write(one, 3, seed=5)]
    assert led.write(batch, 3, seed=6) != sentences
    uniform = place_uniform(batch["meta"], 0, 5, 7)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert not torch.equal(uniform[0], uniform[1])


def test_each_member_is_led_by_its_own_sentence_from_its_own_noise(model, writer, batch):
    led = Led(model, writer, embed, spell)
    members, sentences = led.with_sentences(batch, 2, seed=5)
    assert members.shape == (2, 4, 3, 32, 32)
    for number, texts in enumerate(sentences):
        given = torch.zeros(4, 3, dtype=torch.bool)
        given[:, SEMANTIC] = True
        words = embed([("", "", text) for text in texts])
        alone = batch | {"text_given": words, "is_given": given}
        expected = model.forecast(alone, 2, seed=5)[number]
        assert torch.allclose(members[number], expected, atol=1e-5)
        assert (members[number] - model.forecast(batch, 2, seed=5)[number]).abs().max() > 1e-4


def test_other_captions_that_are_given_stay(model, batch):
    given = torch.zeros(4, 3, dtype=torch.bool)
    given[:, 0] = True
    more = batch | {"text_given": embed([("abc", "x", "y")] * 4), "is_given": given}
    texts = [["one", "two", "three", "four"]]
    both = led_by(model, more, texts, embed)
    assert (both - led_by(model, batch, texts, embed)).abs().max() > 1e-4
    whole = torch.zeros(4, 3, dtype=torch.bool)
    whole[:, [0, SEMANTIC]] = True
    words = embed([("abc", "", text) for text in texts[0]])
    expected = model.forecast(batch | {"text_given": words, "is_given": whole})
    assert torch.allclose(both, expected, atol=1e-5)


def test_tokens_of_hidden_quarters_are_not_seen(model, batch):
    hidden = torch.zeros(4, 4, dtype=torch.bool)
    hidden[:, 1] = True
    plain = model.condition(batch)
    quiet = model.condition(batch | {"hidden_quarters": hidden})
    assert (plain.context - quiet.context).abs().max() > 1e-4
    assert torch.equal(plain.null_context, quiet.null_context)
    nothing = model.condition(batch | {"hidden_quarters": torch.zeros_like(hidden)})
    assert torch.equal(plain.context, nothing.context)


def test_members_are_numbered_from_the_first(model):
    batch = make_batch(3)
    assert torch.allclose(
        model.forecast(batch, 1, first=2), model.forecast(batch, 3)[2:], atol=1e-5
    )
