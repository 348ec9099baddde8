"""An EarthDial checkpoint that is not as it should be is one clear error, nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from earthdial_files import NUMBER, sentencepiece_model
from safetensors.torch import load_file, save_file

from satjepa.captions import earthdial_weights
from satjepa.captions.earthdial import import_earthdial
from satjepa.captions.earthdial_config import CheckpointRefused

Change = Callable[[Path], None]


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
        spoil_json("config.json", lambda raw: raw["llm_config"].update({"vocab_size": 274})),
        r"the tokenizer has 285 tokens, .*vocab_size is 274",
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
