"""Captions by a vision-language model: a real LLaVA, tiny and random. It says nonsense, but all of
it runs.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from satjepa.captions import vlm
from satjepa.captions.vlm import VlmCaptioner, VlmNotFound

CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{{ '<image> ' if c['type'] == 'image' else c['text'] }}"
    "{% endfor %}{% endfor %}"
)


def tiny_processor() -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    words = sorted({w for prompt in vlm.PROMPTS for w in prompt.split()})
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(special + words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return LlavaProcessor(
        images,
        fast,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    path = tmp_path_factory.mktemp("vlm")
    processor = tiny_processor()
    small = {"num_hidden_layers": 2, "num_attention_heads": 2}
    eye = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, image_size=32, patch_size=8, **small
    )
    tongue = LlamaConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.4,
        **small,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=eye, text_config=tongue, image_token_id=4)
    )
    with torch.no_grad():
        for weight in model.model.multi_modal_projector.parameters():
            weight.mul_(20)  # so that a random model minds what it sees
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def captioner(folder: Path) -> VlmCaptioner:
    return VlmCaptioner.from_pretrained(folder, dtype=torch.float32, max_new_tokens=8)


def image(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((3, 4, 4), np.float32)
    return np.kron(coarse, np.ones((16, 16), np.float32))


def test_three_answers_that_depend_on_the_image_and_repeat(captioner: VlmCaptioner) -> None:
    first = captioner(image(0))
    again = captioner(image(0))
    other = captioner(image(1))
    assert first == again != other
    assert len(set(first)) == 3  # three prompts, three answers
    for text in first:
        assert 1 <= len(text.split()) <= 8
        assert "<" not in text and text == " ".join(text.split())


def test_answers_do_not_depend_on_the_other_prompts(
    captioner: VlmCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = captioner(image(0))
    monkeypatch.setattr(
        vlm, "PROMPTS", vlm.Captions(*[vlm.PROMPTS.geometric] * 3)
    )  # no padding: all of one length
    assert captioner(image(0)).geometric == together.geometric


def test_a_dark_place_is_shown_as_dark_as_it_is() -> None:
    assert np.asarray(vlm._picture(np.full((3, 8, 8), 0.1, np.float32), None)).max() == 26


def test_what_is_not_valid_is_not_shown(captioner: VlmCaptioner) -> None:
    valid = np.zeros((64, 64), bool)
    valid[:, :32] = True
    spoiled = np.where(valid, image(0), image(1))
    assert captioner(spoiled, valid) == captioner(image(0), valid) != captioner(image(0))


@pytest.mark.parametrize("path", ["no/such-model", "/no/such/folder"])
def test_a_missing_model_is_one_clear_error(path: str) -> None:
    with pytest.raises(
        VlmNotFound, match=f"no vision-language model in {path}.*hf download.*rules"
    ):
        VlmCaptioner.from_pretrained(path, local_files_only=True)
