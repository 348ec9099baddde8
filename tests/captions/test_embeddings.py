"""Tokenizers that transformers loads, encoders that do not see padding, a store that gives back
what it took.
"""

import pickle
import time
from pathlib import Path

import pytest
import torch

from satjepa.captions import embeddings
from satjepa.captions.embeddings import TextEncoders, TextEncodersNotFound, TextStore
from satjepa.demo import text_encoders

CORPUS = [
    "Forest 40 percent, grass 25. Strong vigour, dark.",
    "Four large parcels, on an upright grid. Soft edges.",
    "Farmland with forest. Northwest forest and grass, southeast water. Change: clearing "
    "northwest.",
    "No data.",
]
LENGTH = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    text_encoders.train_tokenizers(CORPUS, path)
    text_encoders.build_tiny_text_encoders(path, seed=0)
    return path


@pytest.fixture(scope="module")
def encoders(folder: Path) -> TextEncoders:
    return TextEncoders.from_pretrained(folder)


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


def test_the_store_gives_back_what_it_took(encoders: TextEncoders, tmp_path: Path) -> None:
    store = TextStore.write(tmp_path, [*CORPUS, CORPUS[0]], encoders, LENGTH, progress=False)
    assert set(store.rows) == {*CORPUS, ""}  # each once, and the empty text
    for line, (hidden, pooled) in zip(
        [*CORPUS, ""], encoders.encode([*CORPUS, ""], LENGTH), strict=True
    ):
        # embedded in another batch: 1e-6 apart before, one step of bfloat16 (2^-8) after the
        # rounding
        torch.testing.assert_close(
            TextStore.open(tmp_path)[line][0].float(), hidden, atol=1e-5, rtol=2**-8
        )
        torch.testing.assert_close(store[line][1].float(), pooled, atol=1e-5, rtol=2**-8)
        assert store[line][0].dtype == torch.bfloat16
    with pytest.raises(KeyError, match="no embedding of 'other'"):
        store["other"]
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 500 and torch.equal(copy[CORPUS[1]][0], store[CORPUS[1]][0])


def test_batches_of_the_store(encoders: TextEncoders, tmp_path: Path) -> None:
    store = TextStore.write(tmp_path, CORPUS, encoders, LENGTH, progress=False)
    rows = [[CORPUS[0], CORPUS[1], CORPUS[2]], ["", CORPUS[3], CORPUS[0]]] * 8
    batch = store.batch(rows, LENGTH)
    assert batch["hidden"].shape == (16, 3, LENGTH, 128) and batch["pooled"].shape == (16, 3, 128)
    assert batch["mask"].shape == (16, 3, LENGTH) and batch["mask"].dtype == torch.bool
    assert batch["hidden"].dtype == batch["pooled"].dtype == torch.float32
    assert torch.equal(batch["hidden"][1, 1][batch["mask"][1, 1]], store[CORPUS[3]][0].float())
    assert torch.equal(batch["pooled"][0, 2], store[CORPUS[2]][1].float())
    assert batch["mask"].sum(-1)[1].tolist() == [len(store[t][0]) for t in rows[1]]
    assert not batch["hidden"][~batch["mask"]].any()
    short = store.batch(rows, 5)
    assert (
        torch.equal(short["hidden"], batch["hidden"][:, :, :5])
        and short["mask"].all(-1).sum() == 32
    )
    times = []
    for _ in range(20):
        start = time.perf_counter()
        store.batch(rows, LENGTH)
        times.append(time.perf_counter() - start)
    assert min(times) < 2e-3  # measured: 0.5 ms


def test_an_interrupted_store_goes_on_where_it_stopped(
    encoders: TextEncoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "SHARD", 2)
    seen = []
    encode = TextEncoders.encode

    def failing(self: TextEncoders, texts: list[str], *args: object) -> list:
        if len(seen) >= 2:
            raise KeyboardInterrupt
        seen.extend(texts)
        return encode(self, texts, *args)

    monkeypatch.setattr(TextEncoders, "encode", failing)
    with pytest.raises(KeyboardInterrupt):
        TextStore.write(tmp_path, CORPUS, encoders, LENGTH, progress=False)
    assert len(TextStore.open(tmp_path)) == 2
    monkeypatch.setattr(
        TextEncoders,
        "encode",
        lambda self, texts, *a: seen.extend(texts) or encode(self, texts, *a),
    )
    assert len(TextStore.write(tmp_path, CORPUS, encoders, LENGTH, progress=False)) == 5
    assert sorted(seen) == sorted(["", *CORPUS])  # none embedded twice


def test_other_encoders_do_not_mix_with_the_old(
    encoders: TextEncoders, folder: Path, tmp_path: Path
) -> None:
    TextStore.write(tmp_path, CORPUS, encoders, LENGTH, progress=False)
    other = TextEncoders.from_pretrained(folder)
    with torch.no_grad():
        other.t5.shared.weight.add_(1.0)
    store = TextStore.write(tmp_path, CORPUS[:1], other, LENGTH, progress=False)
    assert len(store) == 2
    want, _ = other.encode(CORPUS[:1], LENGTH)[0]
    torch.testing.assert_close(store[CORPUS[0]][0].float(), want, atol=1e-5, rtol=2**-8)


def test_no_store_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no caption embeddings in"):
        TextStore.open(tmp_path)
