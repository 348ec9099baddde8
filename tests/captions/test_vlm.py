"""Captions by a vision-language model: a real LLaVA, tiny and random. It says nonsense, but all of
it runs.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from satjepa.captions import vlm
from satjepa.captions.outcomes import Failed, Written
from satjepa.captions.prompts import load_prompts
from satjepa.captions.vlm import Answer, VlmCaptioner, VlmNotFound
from satjepa.contracts import Captions

CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{{ '<image> ' if c['type'] == 'image' else c['text'] }}"
    "{% endfor %}{% endfor %}"
)


def tiny_processor() -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    plain = load_prompts("plain")
    words = sorted({w for prompt in [*plain.separate, plain.together] for w in prompt.split()})
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
    made = VlmCaptioner.from_pretrained(folder)
    made.prompts = made.prompts.model_copy(update={"tokens_together": 8, "tokens_each": 8})
    return made


def image(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((3, 4, 4), np.float32)
    return np.kron(coarse, np.ones((16, 16), np.float32))


def caption(captioner: VlmCaptioner, rgb: np.ndarray, valid: np.ndarray | None = None) -> Captions:
    (outcome,) = captioner([(rgb, valid)])
    assert isinstance(outcome, Written)
    return outcome.captions


def test_three_answers_that_depend_on_the_image_and_repeat(captioner: VlmCaptioner) -> None:
    first = caption(captioner, image(0))
    again = caption(captioner, image(0))
    other = caption(captioner, image(1))
    assert first == again != other
    assert len(set(first)) == 3  # three prompts, three answers
    for text in first:
        assert 1 <= len(text.split()) <= 8
        assert "<" not in text and text == " ".join(text.split())


def test_a_beginning_that_the_template_writes_is_not_added_again(
    captioner: VlmCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(captioner, "processor", Recorder(captioner.processor, asked))
    for text in ("<s> Q", "Q <s>"):
        monkeypatch.setattr(captioner, "request", lambda question, text=text: text)
        with pytest.raises(StopIteration):
            captioner.answers([object()], "Q", 1)
    assert asked == [False, True]


class Recorder:
    """A processor whose beginning is "<s>"; notes whether special tokens are asked for."""

    def __init__(self, processor: object, asked: list[bool]) -> None:
        self.tokenizer = SimpleNamespace(bos_token="<s>")
        self.asked = asked

    def __call__(self, **settings: object) -> object:
        self.asked.append(settings["add_special_tokens"])
        raise StopIteration


def test_a_batch_does_what_one_at_a_time_does(captioner: VlmCaptioner) -> None:
    pictures = [(image(seed), None) for seed in range(5)]
    together = captioner(pictures)
    assert together == [captioner([picture])[0] for picture in pictures]
    assert len({outcome.captions for outcome in together}) > 1


def test_a_dark_place_is_shown_as_dark_as_it_is() -> None:
    assert np.asarray(vlm._view(np.full((3, 8, 8), 0.1, np.float32), None)).max() == 26


def test_what_is_not_valid_is_not_shown(captioner: VlmCaptioner) -> None:
    valid = np.zeros((64, 64), bool)
    valid[:, :32] = True
    spoiled = np.where(valid, image(0), image(1))
    shown = caption(captioner, spoiled, valid)
    assert shown == caption(captioner, image(0), valid) != caption(captioner, image(0))


GOOD = "INFORMATIVE: Forest and water.\nGEOMETRIC: Two large parcels.\nSEMANTIC: A wooded valley."
THREE = Captions("Forest and water.", "Two large parcels.", "A wooded valley.")


def scripted(captioner: VlmCaptioner, script: dict[str, list[Answer]]) -> tuple[object, list[str]]:
    """A captioner of the same model that answers as written; and what it was asked, with how many
    images.
    """
    made = VlmCaptioner(captioner.model, captioner.processor, captioner.prompts, {"prompts": "p"})
    asked = []
    names = {captioner.prompts.together: "together"}
    names |= {question: kind for kind, question in captioner.prompts.separate._asdict().items()}

    def answers(views: list, question: str, tokens: int) -> list[Answer]:
        asked.append(f"{names[question]} {len(views)}")
        return script[names[question]][: len(views)]

    made.answers = answers
    return made, asked


def test_one_good_answer_is_enough(captioner: VlmCaptioner) -> None:
    made, asked = scripted(captioner, {"together": [Answer(GOOD, True)] * 2})
    outcomes = made([(image(0), None), (image(1), None)])
    assert asked == ["together 2"]
    assert [outcome.captions for outcome in outcomes] == [THREE] * 2
    about = outcomes[0].about
    assert (about["calls"], about["prompts"]) == ("together", "p")
    assert len(about["date"]) == len("2026-01-31")


@pytest.mark.parametrize(
    "bad",
    [
        Answer("A forest beside a river.", True),
        Answer(GOOD, False),  # cut off before its end
        Answer(GOOD.replace("A wooded valley.", "Valley."), True),
    ],
)
def test_where_it_is_not_each_caption_is_asked_for(captioner: VlmCaptioner, bad: Answer) -> None:
    """For that image alone; the others keep their one answer, in their order."""
    each = {kind: [Answer(f" {kind},\nsays  it", False)] for kind in Captions._fields}
    script = {"together": [Answer(GOOD, True), bad, Answer(GOOD, True)]} | each
    made, asked = scripted(captioner, script)
    outcomes = made([(image(seed), None) for seed in range(3)])
    assert asked == ["together 3", "informative 1", "geometric 1", "semantic 1"]
    assert [outcome.about["calls"] for outcome in outcomes] == ["together", "separate", "together"]
    written = Captions("informative, says it", "geometric, says it", "semantic, says it")
    assert [outcome.captions for outcome in outcomes] == [THREE, written, THREE]


def test_an_image_that_nothing_is_said_of_has_failed(captioner: VlmCaptioner) -> None:
    each = {kind: [Answer("a b c", True)] for kind in Captions._fields}
    each["geometric"] = [Answer("", True)]
    made, _ = scripted(captioner, {"together": [Answer("", True)]} | each)
    assert made([(image(0), None)]) == [Failed("nothing was answered for geometric")]


def test_an_answer_is_finished_when_it_has_come_to_its_end(
    captioner: VlmCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the tokens it may have are used up."""
    view = vlm._view(image(0), None)
    (cut_off,) = captioner.answers([view], captioner.prompts.semantic, 8)
    assert not cut_off.finished
    tokens = captioner.processor.tokenizer(cut_off.text).input_ids
    monkeypatch.setattr(captioner.model.generation_config, "eos_token_id", tokens[3])
    (stopped,) = captioner.answers([view], captioner.prompts.semantic, 8)
    assert stopped.finished and len(stopped.text.split()) <= 4


def test_the_folder_is_its_own_revision(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    first = VlmCaptioner.from_pretrained(folder).about["revision"]
    assert first.startswith("blake2b:")
    assert VlmCaptioner.from_pretrained(copy).about["revision"] == first
    (copy / "README.md").write_text("another")
    assert VlmCaptioner.from_pretrained(copy).about["revision"] != first


def test_prompts_need_the_tokens_that_they_are_made_of(folder: Path) -> None:
    with pytest.raises(VlmNotFound, match=r"\[caption\], \[s2_rgb_10\], which .*vlm\.prompts"):
        VlmCaptioner.from_pretrained(folder, prompts="earthdial")


def test_on_a_gpu_it_is_bfloat16_else_float32(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: self)
    assert VlmCaptioner.from_pretrained(folder, device="cuda").model.dtype == torch.bfloat16
    assert VlmCaptioner.from_pretrained(folder, device="cpu").model.dtype == torch.float32


@pytest.mark.parametrize("path", ["no/such-model", "/no/such/folder"])
def test_a_missing_model_is_one_clear_error(path: str) -> None:
    with pytest.raises(
        VlmNotFound, match=f"no vision-language model in {path}.*hf download.*rules"
    ):
        VlmCaptioner.from_pretrained(path, local_files_only=True)
