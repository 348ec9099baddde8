"""A store of text embeddings gives back what it took, whatever happened while it was written."""

import pickle
from pathlib import Path

import pytest
import torch
from caption_corpus import CORPUS, LENGTH

from satjepa.captions import store as store_module
from satjepa.captions.embeddings import TextEncoders
from satjepa.captions.store import TextStore


@pytest.fixture(scope="module")
def store(encoders: TextEncoders, tmp_path_factory: pytest.TempPathFactory) -> TextStore:
    folder = tmp_path_factory.mktemp("store")
    return TextStore.write(folder, CORPUS, encoders, LENGTH, progress=False)


def test_the_store_gives_back_what_it_took(encoders: TextEncoders, tmp_path: Path) -> None:
    store = TextStore.write(tmp_path, [*CORPUS, CORPUS[0]], encoders, LENGTH, progress=False)
    assert set(store.numbers) == {*CORPUS, ""}  # each once, and the empty text
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


def padded(store: TextStore, row: list[str], lengths: tuple[int, ...]) -> torch.Tensor:
    """The plain way, text by text: (S,L,D)."""
    out = torch.zeros(len(row), max(lengths), store[""][0].shape[1])
    for place, text, length in zip(out, row, lengths, strict=True):
        states = store[text][0][:length]
        place[: len(states)] = states
    return out


@pytest.mark.parametrize("lengths", [(LENGTH,) * 3, (5, 9, LENGTH - 4), (30, 2, 3)])
def test_batches_of_the_store(store: TextStore, lengths: tuple[int, int, int]) -> None:
    rows = [[CORPUS[0], CORPUS[1], CORPUS[2]], ["", CORPUS[3], CORPUS[0]]] * 3
    numbers = torch.tensor([[store.number(text) for text in row] for row in rows])
    batch = store.gather(numbers, lengths)
    assert batch["hidden"].shape == (6, 3, max(lengths), 128)
    assert batch["pooled"].shape == (6, 3, 128)
    assert batch["hidden"].dtype == batch["pooled"].dtype == torch.float32
    assert batch["mask"].dtype == torch.bool
    for i, row in enumerate(rows):
        assert torch.equal(batch["hidden"][i], padded(store, row, lengths))
        assert torch.equal(batch["pooled"][i], torch.stack([store[t][1] for t in row]).float())
        tokens = [min(len(store[t][0]), n) for t, n in zip(row, lengths, strict=True)]
        assert batch["mask"][i].sum(-1).tolist() == tokens
    assert not batch["hidden"][~batch["mask"]].any()
    assert torch.equal(batch["mask"], batch["mask"].sort(-1, descending=True).values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_buffer_is_used_again(store: TextStore, dtype: torch.dtype) -> None:
    """What a longer text left behind a shorter one is cleared."""
    buffer = store.buffer(2, (LENGTH, 6, LENGTH), dtype)
    place = buffer.hidden.data_ptr()
    short = [["", "", ""], [CORPUS[3]] * 3]
    for rows in (short, [[CORPUS[2]] * 3] * 2, short, short[::-1]):
        numbers = torch.tensor([[store.number(text) for text in row] for row in rows])
        batch = store.gather(numbers, (LENGTH, 6, LENGTH), buffer)
        alone = store.gather(numbers, (LENGTH, 6, LENGTH))
        assert batch["hidden"].data_ptr() == place and batch["hidden"].dtype == dtype
        for part in ("hidden", "mask", "pooled"):
            assert torch.equal(batch[part].float(), alone[part].float()), part


def test_an_interrupted_store_goes_on_where_it_stopped(
    encoders: TextEncoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SHARD", 2)
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


def test_half_written_files_are_written_again(encoders: TextEncoders, tmp_path: Path) -> None:
    whole = TextStore.write(tmp_path, CORPUS, encoders, LENGTH, progress=False)
    (file,) = tmp_path.glob("*.safetensors")
    before = file.read_bytes()
    for left in (before[: len(before) // 2], b""):
        file.write_bytes(left)
        (tmp_path / "0123.part").write_bytes(before[:1000])
        again = TextStore.write(tmp_path, CORPUS, encoders, LENGTH, progress=False)
        assert again.numbers == whole.numbers
        assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [(file.name, before)]


def test_texts_that_are_no_longer_asked_for_stay(encoders: TextEncoders, tmp_path: Path) -> None:
    first = TextStore.write(tmp_path, CORPUS[:2], encoders, LENGTH, progress=False)
    kept = {text: first[text][0].clone() for text in CORPUS[:2]}
    store = TextStore.write(tmp_path, CORPUS[2:], encoders, LENGTH, progress=False)
    assert set(store.numbers) == {*CORPUS, ""}
    assert all(torch.equal(store[text][0], hidden) for text, hidden in kept.items())


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
