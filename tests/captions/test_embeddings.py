"""Tokenizers that transformers loads, encoders that do not see padding."""

from pathlib import Path

import pytest
import torch
from caption_corpus import CORPUS, LENGTH

from satjepa.captions.embeddings import TextEncoders, TextEncodersNotFound
from satjepa.demo import text_encoders


def test_tokenizers_load_through_transformers_and_keep_the_text(folder: Path) -> None:
    from transformers import AutoTokenizer, CLIPTokenizer, T5TokenizerFast

    clip = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
    t5 = T5TokenizerFast.from_pretrained(folder / "tokenizer_3")
    assert clip.model_max_length == 77
    auto = AutoTokenizer.from_pretrained(folder / "tokenizer_3")
    assert len(t5) == len(auto) < 300
    for line in CORPUS:
        assert t5.decode(t5(line).input_ids, skip_special_tokens=True) == line
        letters = clip.decode(clip(line).input_ids, skip_special_tokens=True).replace(" ", "")
        assert letters == line.lower().replace(" ", "")
        assert (clip(line).input_ids[0], clip(line).input_ids[-1]) == (0, 1)  # start and end
    assert t5.tokenize("Farmland with forest.") == [
        "▁Farmland",
        "▁with",
        "▁forest",
        ".",
    ]  # one token a word
    odd = "A Zebra, 17% (x)!"  # spelled, not lost
    assert t5.unk_token_id not in t5(odd).input_ids
    assert clip.eos_token_id not in clip(odd).input_ids[:-1]


def test_encoders_have_the_declared_shapes_and_are_frozen(encoders: TextEncoders) -> None:
    hidden, pooled = encoders.encode(["No data."], LENGTH)[0]
    assert hidden.shape == (4, encoders.hidden_dim) == (4, 128)  # No, data, ., end
    assert pooled.shape == (encoders.pooled_dim,) == (128,)
    assert not encoders.training and not any(p.requires_grad for p in encoders.parameters())
    assert len(encoders.encode([CORPUS[2]], 10)[0][0]) == 10  # cut


def test_an_embedding_depends_on_its_text_alone(encoders: TextEncoders) -> None:
    together = encoders.encode(CORPUS, LENGTH)
    for line, (hidden, pooled) in zip(CORPUS, together, strict=True):
        alone_hidden, alone_pooled = encoders.encode([line], LENGTH)[0]
        torch.testing.assert_close(hidden, alone_hidden, atol=1e-5, rtol=0)
        torch.testing.assert_close(pooled, alone_pooled, atol=1e-5, rtol=0)
    padded, mask, pooled = encoders.embed_batch(CORPUS, LENGTH)
    assert padded.shape == (4, LENGTH, 128) and mask.shape == (4, LENGTH)
    torch.testing.assert_close(padded[3][mask[3]], together[3][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(pooled[3], together[3][1], atol=1e-5, rtol=0)
    assert not padded[~mask].any()
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3 and (
        padded[0, 0] - padded[1, 0]
    ).abs().max() > 1e-3


def test_the_order_of_the_words_matters(encoders: TextEncoders) -> None:
    (one, one_pooled), (two, two_pooled) = encoders.encode(
        ["forest and grass", "grass and forest"], LENGTH
    )
    assert (one[1] - two[1]).abs().max() > 1e-4  # the word between them has other neighbours
    assert (one_pooled - two_pooled).abs().max() > 1e-4


def test_forward_lets_the_gradient_through(folder: Path) -> None:
    encoders = TextEncoders.from_pretrained(folder).requires_grad_(True)
    tokens = encoders.tokenize(CORPUS, LENGTH)
    assert tokens["t5"].shape == tokens["mask"].shape == (4, LENGTH) and tokens["clip_1"].shape == (
        4,
        77,
    )
    hidden, _, pooled = encoders({name: ids[:2] for name, ids in tokens.items()})
    (hidden.square().mean() + pooled.square().mean()).backward()
    for model in (encoders.clip_1, encoders.clip_2, encoders.t5):
        assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    assert not encoders.embed_batch(CORPUS, LENGTH)[0].requires_grad


def test_saved_encoders_load_again_in_half_precision(
    encoders: TextEncoders, tmp_path: Path
) -> None:
    encoders.save_pretrained(tmp_path)
    again = TextEncoders.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert again.t5.dtype == again.clip_2.dtype == torch.bfloat16
    assert (
        TextEncoders.from_pretrained(tmp_path).fingerprint()
        == encoders.fingerprint()
        != again.fingerprint()
    )
    (hidden, _), (want, _) = (
        again.encode(CORPUS[:1], LENGTH)[0],
        encoders.encode(CORPUS[:1], LENGTH)[0],
    )
    torch.testing.assert_close(hidden.float(), want, atol=0.1, rtol=0.1)


def test_the_seed_makes_the_encoders(folder: Path, encoders: TextEncoders, tmp_path: Path) -> None:
    text_encoders.train_tokenizers(CORPUS, tmp_path)
    for name in ("tokenizer", "tokenizer_3"):
        assert (tmp_path / name / "tokenizer.json").read_bytes() == (
            folder / name / "tokenizer.json"
        ).read_bytes()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    text_encoders.build_tiny_text_encoders(tmp_path, seed=0)
    assert torch.equal(state, torch.get_rng_state())  # the caller's random numbers are untouched
    assert TextEncoders.from_pretrained(tmp_path).fingerprint() == encoders.fingerprint()
    text_encoders.build_tiny_text_encoders(tmp_path, seed=1)
    assert TextEncoders.from_pretrained(tmp_path).fingerprint() != encoders.fingerprint()


@pytest.mark.parametrize("path", ["no/such-model", "/no/such/folder"])
def test_missing_encoders_are_one_clear_error(path: str) -> None:
    says = f"no text encoders in {path}.*tokenizer_3.*licence.*hf auth login"
    with pytest.raises(TextEncodersNotFound, match=says):
        TextEncoders.from_pretrained(path, local_files_only=True)
