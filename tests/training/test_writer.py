"""The caption writer trained on the shipped model: it learns, is kept, and fits one model alone."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from reach import REPO
from safetensors.torch import load_file, save_file

from satjepa.assemble import from_checkpoint, load_led, load_text_encoders
from satjepa.captions.embeddings import caption_embedder
from satjepa.config import load_params
from satjepa.contracts import SEMANTIC, Captions
from satjepa.data.pairs import collate
from satjepa.training import checkpoint, writer
from satjepa.training.checkpoint import CheckpointError

QUARTERS = "Northwest {0}, northeast {0}, southwest {0}, southeast {0}. No sign of change."
TEXTS = [f"{c.capitalize()}. {QUARTERS.format(c)}" for c in ("forest", "water")]


class Store:
    """The two captions, embedded, among others."""

    def __init__(self, encoders) -> None:
        self.numbers = {"": 0, TEXTS[0]: 1, "of no place": 2, TEXTS[1]: 3}
        embed = caption_embedder(encoders, 48)
        self.told = embed([Captions("", "", text) for text in TEXTS])

    def gather(self, numbers: torch.Tensor, lengths: tuple[int]) -> dict[str, torch.Tensor]:
        assert lengths == (48,)
        return {name: value[numbers[:, 0] // 2, SEMANTIC:] for name, value in self.told.items()}


class Pairs:
    """Two kinds of places that stay what they are, dark and bright, four of each."""

    def __init__(self, encoders) -> None:
        self.text = Store(encoders)
        self.read: list[int] = []

    def __len__(self) -> int:
        return 8

    def words(self, indices) -> torch.Tensor:
        return torch.tensor([[[0, 0, 1 + 2 * (i % 2)] for i in indices]] * 2)

    def __getitem__(self, index: int) -> dict:
        text = {name: value[index % 2] for name, value in self.text.told.items()}
        return self.pixels(index) | {"text_t": text}

    def pixels(self, index: int) -> dict:
        self.read.append(index)
        kind = index % 2
        meta = {"preset": "p", "region": f"R{index}", "year": 2020, "x": 0, "y": 0, "aug": 0}
        return {
            "rgb_t": torch.full((3, 64, 64), 0.1 + 0.5 * kind),
            "history": torch.zeros(2, 3, 64, 64),
            "history_valid": torch.zeros(2, dtype=torch.bool),
            "meta": meta,
        }


@pytest.fixture(scope="module")
def model():
    return from_checkpoint(checkpoint.load(REPO / "assets/demo_model"), "cpu")


@pytest.fixture(scope="module")
def encoders(model):
    return load_text_encoders(model.params, "cpu")


@pytest.fixture(scope="module")
def how():
    small = {"dim": 32, "layers": 1, "heads": 2, "steps": 80, "batch": 4, "lr": 2e-2}
    return load_params().writer.model_copy(update=small)


@pytest.fixture(scope="module")
def trained(model, encoders, how):
    made = writer.new_writer(model, encoders, how, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    log = []
    train = model.params.train
    lines = writer.train_writer(made, model, Pairs(encoders), encoders, how, train, 0, log.append)
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    return made, lines, log


@pytest.fixture
def folder(trained, model, encoders, tmp_path) -> Path:
    writer.save_writer(tmp_path / writer.NAME, trained[0], model, encoders, trained[1])
    return tmp_path


def test_it_learns_what_is_said_of_which_place(trained, model, encoders, folder) -> None:
    _, lines, log = trained
    assert [line["step"] for line in lines] == [*range(8, 81, 8)] and len(log) == 10
    assert lines[0]["loss"] > 4 and lines[-1]["loss"] < 0.3 * lines[0]["loss"]
    led = load_led(model, folder, encoders)
    data = Pairs(encoders)
    assert led.write_likeliest(collate([data[0], data[1], data[2]])) == [
        TEXTS[0],
        TEXTS[1],
        TEXTS[0],
    ]


def test_equal_seeds_give_equal_bytes(model, encoders, how, tmp_path) -> None:
    short = how.model_copy(update={"steps": 3})

    def made(seed: int) -> bytes:
        one = writer.new_writer(model, encoders, short, seed=0)
        train = model.params.train
        lines = writer.train_writer(one, model, Pairs(encoders), encoders, short, train, seed, str)
        return writer.save_writer(tmp_path / "w", one, model, encoders, lines).read_bytes()

    first = made(seed=0)
    assert made(seed=0) == first and made(seed=1) != first
    third = writer.new_writer(model, encoders, how, seed=1)
    assert not torch.equal(third.positions, writer.new_writer(model, encoders, how, 0).positions)


def test_tokens_are_made_once_of_the_windows_asked_for(model, encoders, how, trained) -> None:
    data = Pairs(encoders)
    few = how.model_copy(update={"windows": 4, "steps": 3})
    made = writer.new_writer(model, encoders, few, seed=0)
    writer.train_writer(made, model, data, encoders, few, model.params.train, 0, str)
    assert data.read == [0, 2, 4, 6]


def test_a_loss_that_is_not_finite_is_an_error_and_reaches_no_weight(
    model, encoders, how, monkeypatch
) -> None:
    made = writer.new_writer(model, encoders, how, seed=0)
    loss = made.loss
    monkeypatch.setattr(made, "loss", lambda *given: loss(*given) * torch.inf)
    with pytest.raises(CheckpointError, match="not finite in the steps up to 8"):
        writer.train_writer(made, model, Pairs(encoders), encoders, how, model.params.train, 0, str)
    assert all(value.isfinite().all() for value in made.state_dict().values())


def test_it_is_found_in_a_folder_and_beside_that_of_a_run(folder, tmp_path) -> None:
    assert writer.find_writer(folder) == folder / writer.NAME
    assert writer.find_writer(folder / "model") == folder / writer.NAME
    assert writer.find_writer(folder / "other") is None


def test_what_does_not_fit_is_refused(folder, model, encoders, tmp_path) -> None:
    path = folder / writer.NAME
    with pytest.raises(CheckpointError, match=r"no writer.safetensors with .*nowhere: `dvc repro"):
        writer.load_writer(tmp_path / "nowhere", model, encoders)
    kept = model.encoder.norm.bias.data.clone()
    model.encoder.norm.bias.data += 1
    with pytest.raises(CheckpointError, match="trained for other tokens than those of"):
        writer.load_writer(folder, model, encoders)
    model.encoder.norm.bias.data = kept
    other = SimpleNamespace(fingerprint=lambda: "0")
    with pytest.raises(CheckpointError, match="trained for other encoders than those of"):
        writer.load_writer(folder, model, other)
    save_file(load_file(path), path)
    with pytest.raises(CheckpointError, match="no caption writer of format satjepa-writer-1"):
        writer.load_writer(folder, model, encoders)
    path.write_bytes(b"half")
    with pytest.raises(CheckpointError, match="cannot be read"):
        writer.load_writer(folder, model, encoders)
    silent = SimpleNamespace(params=model.params)
    with pytest.raises(CheckpointError, match="cannot be led by captions"):
        writer.load_writer(folder, silent, encoders)


def test_a_loss_that_is_not_finite_stops_it(model, encoders, how) -> None:
    made = writer.new_writer(model, encoders, how, seed=0)
    with torch.no_grad():
        made.norm.bias += torch.nan
    with pytest.raises(CheckpointError, match="loss is not finite in the steps up to 8"):
        writer.train_writer(
            made, model, Pairs(encoders), encoders, how, model.params.train, 0, print
        )
