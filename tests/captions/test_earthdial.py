"""EarthDial's checkpoint as a folder of transformers: a round trip of random weights. What is
refused: test_earthdial_faults.py; what EarthDial itself computes: test_earthdial_golden.py.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from earthdial_files import CONFIG, NUMBER, VISION
from safetensors.torch import load_file

from satjepa.captions import earthdial_weights
from satjepa.captions.earthdial import import_earthdial, origin_of
from satjepa.captions.earthdial_text import read_tokenizer
from satjepa.captions.outcomes import Written
from satjepa.captions.vlm import VlmCaptioner, VlmNotFound

Change = Callable[[Path], None]


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


def test_images_are_cut_as_its_configuration_says(imported: Path) -> None:
    """At most four tiles and the whole picture; a square one is a single tile, of 9 tokens."""
    captioner = VlmCaptioner.from_pretrained(imported)
    for size, tiles in {(84, 84): 1, (64, 64): 1, (400, 84): 5, (180, 84): 3}.items():
        wide = view(0).resize(size)
        inputs = captioner.processor(
            text=[captioner.request("a")], images=[[wide]], return_tensors="pt"
        )
        assert inputs["pixel_values"].shape == (tiles, 3, 84, 84), size
        assert (inputs["input_ids"] == NUMBER["<IMG_CONTEXT>"]).sum() == 9 * tiles
    black = captioner.processor.image_processor(
        [view(0).point(lambda value: 0)], return_tensors="pt"
    )["pixel_values"]
    mean = torch.tensor([0.485, 0.456, 0.406])
    std = torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(black[0, :, 0, 0], -mean / std)


def test_without_tiles_every_picture_is_one(source: Path, tmp_path: Path) -> None:
    raw = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(raw | {"dynamic_image_size": False}))
    folder = import_earthdial(source, tmp_path / "made", progress=False)
    processor = VlmCaptioner.from_pretrained(folder).processor
    pixels = processor(text=["<IMG_CONTEXT>"], images=[[view(0).resize((400, 84))]])["pixel_values"]
    assert len(pixels) == 1


def test_in_bfloat16_the_frequencies_of_rope_are_not_rounded(imported: Path) -> None:
    model = VlmCaptioner.from_pretrained(imported, dtype=torch.bfloat16).model
    assert model.dtype == torch.bfloat16
    assert model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32


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


def test_a_token_may_be_saved_with_its_flags(source: Path) -> None:
    plain = read_tokenizer(source)
    file = source / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["bos_token"] = {"__type": "AddedToken", "content": "<s>", "lstrip": False}
    file.write_text(json.dumps(settings))
    assert read_tokenizer(source).bos_token == plain.bos_token == "<s>"
    assert read_tokenizer(source)("area").input_ids == plain("area").input_ids


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


def test_an_imported_folder_says_what_it_was_made_of(imported: Path, earthdial_home: Path) -> None:
    origin = origin_of(imported)
    assert origin == {
        "source": str(earthdial_home / "theirs"),
        "revision": None,
        "prompts": "earthdial",
    }
    assert origin_of(earthdial_home / "theirs") is None


def test_equal_imports_give_equal_bytes(
    imported: Path, earthdial_home: Path, tmp_path: Path
) -> None:
    again = import_earthdial(earthdial_home / "theirs", tmp_path / "again", progress=False)
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


def test_a_checkpoint_that_was_not_imported_is_no_captioner(
    earthdial_home: Path, native: torch.nn.Module
) -> None:
    with pytest.raises(
        VlmNotFound, match=r"theirs has EarthDial's own layout.*captions import .*theirs FOLDER"
    ):
        VlmCaptioner.from_pretrained(earthdial_home / "theirs")


def test_sizes_are_those_of_this_file() -> None:
    """Neither the published checkpoint's nor those of the small one in shared/."""
    assert VISION["image_size"] not in (448, 56)
    assert CONFIG["llm_config"]["num_key_value_heads"] < CONFIG["llm_config"]["num_attention_heads"]
