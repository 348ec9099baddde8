"""EarthDial's checkpoint as a folder of transformers: a round trip of random weights, and one clear
error for what is not as it should be. What EarthDial itself computes: test_earthdial_golden.py.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from earthdial_files import CONFIG, NUMBER, VISION, sentencepiece_model, write_checkpoint
from safetensors.torch import load_file, save_file

from satjepa.captions import earthdial_weights
from satjepa.captions.earthdial import import_earthdial, origin_of
from satjepa.captions.earthdial_config import CheckpointRefused
from satjepa.captions.earthdial_text import read_tokenizer
from satjepa.captions.outcomes import Written
from satjepa.captions.vlm import VlmCaptioner, VlmNotFound

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("earthdial")


@pytest.fixture(scope="module")
def native(home: Path) -> torch.nn.Module:
    return write_checkpoint(home / "theirs")


@pytest.fixture(scope="module")
def imported(home: Path, native: torch.nn.Module) -> Path:
    return import_earthdial(home / "theirs", home / "ours", progress=False)


@pytest.fixture
def source(home: Path, native: torch.nn.Module, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(home / "theirs", tmp_path / "source"))


def test_every_tensor_comes_back(imported: Path, native: torch.nn.Module) -> None:
    from transformers import AutoModelForImageTextToText

    model, found = AutoModelForImageTextToText.from_pretrained(
        imported, dtype="auto", output_loading_info=True
    )
    assert not any(found.values()), found
    wanted = native.state_dict()
    state = model.state_dict()
    assert state.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert state[name].dtype == torch.bfloat16
        assert torch.equal(state[name], tensor), name


def test_settings_that_pass_in_silence_come_back(imported: Path, native: torch.nn.Module) -> None:
    """What logits of a small model would hardly show."""
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(imported)
    for part in ("vision_config", "text_config"):
        mine = getattr(config, part).to_dict()
        for name, value in getattr(native.config, part).to_dict().items():
            if name not in ("dtype", "architectures", "_name_or_path"):
                assert mine[name] == value, (part, name)
    assert config.image_token_id == NUMBER["<IMG_CONTEXT>"]
    assert (config.image_seq_length, config.tie_word_embeddings) == (9, False)
    assert config.text_config.rope_parameters["rope_type"] == "longrope"
    generation = GenerationConfig.from_pretrained(imported)
    assert generation.eos_token_id == NUMBER["<|end|>"]
    assert generation.pad_token_id == NUMBER["<|endoftext|>"]


def test_logits_come_back(imported: Path, native: torch.nn.Module) -> None:
    """Of prompts longer than the original context, where RoPE changes its factors."""
    captioner = VlmCaptioner.from_pretrained(imported)
    inputs = captioner.processor(
        text=[captioner.request("a rea")], images=[[view(0)]], return_tensors="pt"
    )
    assert inputs["input_ids"].shape[1] > 64
    native = native.float()
    with torch.inference_mode():
        assert torch.equal(captioner.model(**inputs).logits, native(**inputs).logits)


def test_a_prompt_begins_as_it_did_in_training(imported: Path) -> None:
    """<s>, the mark of a space, <|system|>; then no line break between turns."""
    captioner = VlmCaptioner.from_pretrained(imported)
    ids = captioner.processor.tokenizer(captioner.request("a rea")).input_ids
    assert ids[:3] == [1, 259, NUMBER["<|system|>"]]
    text = captioner.request("a rea")
    assert "<|end|><|user|>\n[caption] [s2_rgb_10] <IMG_CONTEXT>\na rea<|end|>" in text
    assert text.endswith("<|end|><|assistant|>\n")
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
    assert "<|user|>\n<IMG_CONTEXT>\na<|end|>" in captioner.processor.apply_chat_template(message)


def test_a_tokenizer_without_sentencepiece_merges_as_it_was_trained(source: Path) -> None:
    tokens = read_tokenizer(source).tokenize("area tat")
    assert tokens == ["▁a", "rea", "▁t", "at"]


def view(seed: int, side: int = 84) -> object:
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(noise)


def picture(seed: int) -> tuple:
    coarse = np.random.default_rng(seed).random((3, 4, 4), np.float32)
    return np.kron(coarse, np.ones((16, 16), np.float32)), None


def test_an_imported_folder_captions_and_a_batch_does_what_one_at_a_time_does(
    imported: Path,
) -> None:
    captioner = VlmCaptioner.from_pretrained(imported)
    pictures = [picture(seed) for seed in range(3)]
    together = captioner(pictures)
    assert all(isinstance(outcome, Written) for outcome in together)
    assert len({outcome.captions for outcome in together}) == 3
    assert [captioner([one])[0] for one in pictures] == together
    about = together[0].about
    assert about["prompts"] == captioner.prompts.hash
    assert captioner.prompts.tokens == ("[caption]", "[s2_rgb_10]")
    assert about["revision"].startswith("blake2b:") and about["library"].startswith("transformers")


def test_an_imported_folder_says_what_it_was_made_of(imported: Path, home: Path) -> None:
    origin = origin_of(imported)
    assert origin == {"source": str(home / "theirs"), "revision": None, "prompts": "earthdial"}
    assert origin_of(home / "theirs") is None


def test_equal_imports_give_equal_bytes(imported: Path, home: Path, tmp_path: Path) -> None:
    again = import_earthdial(home / "theirs", tmp_path / "again", progress=False)
    files = sorted(file.name for file in imported.iterdir())
    assert files == sorted(file.name for file in again.iterdir())
    for name in files:
        assert (again / name).read_bytes() == (imported / name).read_bytes(), name


def test_weights_are_written_in_files_that_fit(
    imported: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earthdial_weights, "SHARD_BYTES", 50_000)
    made = import_earthdial(source, tmp_path / "made", progress=False)
    shards = sorted(made.glob("*.safetensors"))
    assert len(shards) > 3
    assert max(sum(t.nbytes for t in load_file(file).values()) for file in shards) <= 50_000
    index = json.loads((made / "model.safetensors.index.json").read_text())
    whole = load_file(imported / "model-00001.safetensors")
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(made / file)[name], whole.pop(name))
    assert not whole


def spoil_weights(change: Callable[[dict], None], shard: int = 2) -> Change:
    def spoil(folder: Path) -> None:
        file = folder / f"model-0000{shard}-of-00002.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})

    return spoil


def spoil_json(name: str, change: Callable[[dict], None]) -> Change:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return spoil


def config(key: str, value: object) -> Change:
    return spoil_json("config.json", lambda raw: raw.update({key: value}))


def rope(kind: str) -> Change:
    return spoil_json(
        "config.json", lambda raw: raw["llm_config"]["rope_scaling"].update({"type": kind})
    )


def shorten(tensors: dict) -> None:
    tensors["mlp1.1.bias"] = tensors["mlp1.1.bias"][:-1].clone()


def twice(folder: Path) -> None:
    key = next(iter(load_file(folder / "model-00001-of-00002.safetensors")))
    other = load_file(folder / "model-00002-of-00002.safetensors")
    save_file(other | {key: torch.ones(1)}, folder / "model-00002-of-00002.safetensors")


def truncate(folder: Path) -> None:
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


FAULTS: dict[str, tuple[Change, str]] = {
    "missing key": (
        spoil_weights(lambda t: t.pop("mlp1.1.bias")),
        r"lacks tensors.*multi_modal_projector\.linear_1\.bias",
    ),
    "left-over key": (
        spoil_weights(
            lambda t: t.update({"vision_model.encoder.layers.3.ls1": torch.ones(40)})
        ),
        r"has tensors that the model .* does not: vision_model\.encoder\.layers\.3\.ls1",
    ),
    "unknown key": (
        spoil_weights(lambda t: t.update({"head.weight": torch.ones(2)})),
        r"has tensors that the model .* does not: head\.weight",
    ),
    "wrong shape": (spoil_weights(shorten), r"mlp1\.1\.bias is \(47,\), .* would be \(48,\)"),
    "key in two files": (twice, r"stands in model-00001-of-00002.* and in model-00002-of-00002"),
    "truncated": (truncate, r"model-00002-of-00002.safetensors is not complete"),
    "other model": (config("model_type", "llava"), r'model_type is "llava", accepted: "intern'),
    "other template": (config("template", "internlm2-chat"), r'template is "internlm2-chat"'),
    "other shuffle": (config("ps_version", "v1"), r'ps_version is "v1", accepted: "v2"'),
    "with a LoRA": (config("use_llm_lora", 16), r"use_llm_lora is 16, accepted: 0"),
    "other side": (config("force_image_size", 112), r"force_image_size is 112, accepted:.*84"),
    "no thumbnail": (config("use_thumbnail", False), r"use_thumbnail is false"),
    "other rope": (rope("yarn"), r'rope_scaling.type is "yarn", accepted: "su" or "longrope"'),
    "no vision": (
        spoil_json("config.json", lambda raw: raw.pop("vision_config")),
        r"config.json has no vision_config\.image_size",
    ),
    "small vocabulary": (
        spoil_json("config.json", lambda raw: raw["llm_config"].update({"vocab_size": 273})),
        r"the tokenizer has 284 tokens, .*vocab_size is 273",
    ),
    "legacy tokenizer": (
        spoil_json("tokenizer_config.json", lambda raw: raw.update({"legacy": True})),
        r"legacy is true, accepted: false",
    ),
    "no <s>": (
        spoil_json("tokenizer_config.json", lambda raw: raw.pop("add_bos_token")),
        r"add_bos_token is null, accepted: true",
    ),
    "no image token": (
        spoil_json(
            "tokenizer_config.json",
            lambda raw: raw["added_tokens_decoder"].pop(str(NUMBER["<IMG_CONTEXT>"])),
        ),
        r"added_tokens_decoder lacks <IMG_CONTEXT>",
    ),
    "unigram": (
        lambda folder: (folder / "tokenizer.model").write_bytes(sentencepiece_model(1)),
        r"kind 1, not 2 \(BPE\)",
    ),
    "no sentencepiece": (
        lambda folder: (folder / "tokenizer.model").write_bytes(b"\x0a\xff"),
        r"is not a sentencepiece model",
    ),
    "no JSON": (
        lambda folder: (folder / "config.json").write_text("{"),
        r"config.json is not JSON",
    ),
}  # fmt: skip
FILES = [
    "config.json", "tokenizer.model", "tokenizer_config.json", "model.safetensors.index.json",
    "model-00002-of-00002.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_as_it_should_be_is_one_clear_error(fault: str, source: Path) -> None:
    spoil, message = FAULTS[fault]
    spoil(source)
    with pytest.raises(CheckpointRefused, match=message):
        import_earthdial(source, source.parent / "made", progress=False)
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_one_clear_error(name: str, source: Path) -> None:
    (source / name).unlink()
    with pytest.raises(CheckpointRefused, match=rf"source has n.*{name}"):
        import_earthdial(source, source.parent / "made", progress=False)
    assert list(source.parent.iterdir()) == [source]


def test_what_an_import_would_overwrite_is_kept(imported: Path, source: Path) -> None:
    before = sorted(imported.iterdir())
    with pytest.raises(CheckpointRefused, match="exists: name a folder that does not"):
        import_earthdial(source, imported, progress=False)
    assert sorted(imported.iterdir()) == before
    with pytest.raises(CheckpointRefused, match="is a folder, and --revision is for a hub id"):
        import_earthdial(source, source.parent / "made", "main", progress=False)


def test_a_failing_disk_leaves_nothing_under_the_name(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed import left is cleared away by the next one."""
    made = source.parent / "made"
    left = source.parent / ".made.part"
    left.mkdir()
    (left / "half.safetensors").write_bytes(b"half")
    writes = []

    def full(shard: dict, path: Path, metadata: dict) -> None:
        writes.append(path)
        assert not made.exists() and not (left / "half.safetensors").exists()
        if len(writes) == 3:
            raise OSError("disk full")
        save_file(shard, path, metadata)

    monkeypatch.setattr(earthdial_weights, "SHARD_BYTES", 50_000)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="disk full"):
        import_earthdial(source, made, progress=False)
    assert list(source.parent.iterdir()) == [source]
    monkeypatch.undo()
    assert import_earthdial(source, made, progress=False) == made


def test_a_checkpoint_that_was_not_imported_is_no_captioner(
    home: Path, native: torch.nn.Module
) -> None:
    with pytest.raises(
        VlmNotFound, match=r"no vision-language model in.*captions import .*theirs FOLDER"
    ):
        VlmCaptioner.from_pretrained(home / "theirs")


def test_sizes_are_those_of_this_file() -> None:
    """Neither the published checkpoint's nor those of the small one in shared/."""
    assert VISION["image_size"] not in (448, 56)
    assert CONFIG["llm_config"]["num_key_value_heads"] < CONFIG["llm_config"]["num_attention_heads"]
