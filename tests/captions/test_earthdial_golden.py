"""What EarthDial itself computed from a checkpoint of random weights, by its own code: equal
inputs, logits and texts after the import.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from satjepa.captions.earthdial import import_earthdial
from satjepa.captions.prompts import load_prompts
from satjepa.captions.vlm import VlmCaptioner

CASES = ["one", "tiled", "batch", "stop"]
LOGITS = 2e-4  # of values up to 12, in float32


def as_list(value: object) -> list:
    return value if isinstance(value, list) else [value]


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[dict, dict]:
    folder = shared / "captions"
    if not (folder / "golden.json").is_file():
        pytest.skip(f"no golden vectors of EarthDial in {folder}")
    meta = json.loads((folder / "golden.json").read_text())
    return meta, load_file(folder / "golden.safetensors")


@pytest.fixture(scope="module")
def captioner(
    golden: tuple, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> VlmCaptioner:
    folder = tmp_path_factory.mktemp("golden") / "imported"
    source = shared / "captions" / golden[0]["checkpoint"]
    import_earthdial(source, folder, progress=False)
    return VlmCaptioner.from_pretrained(folder)


def asked(captioner: VlmCaptioner, question: str) -> str:
    """The prompt of a question as EarthDial takes it: with its image inside, or first of all."""
    before, image, after = question.rpartition("<image>")
    frame = f"{before}<image>{{question}}" if image else "<image>\n{question}"
    plain = captioner.prompts
    captioner.prompts = load_prompts("earthdial").model_copy(update={"frame": frame})
    try:
        return captioner.request(after)
    finally:
        captioner.prompts = plain


def inputs_of(captioner: VlmCaptioner, golden: tuple, case: str) -> tuple[dict, dict, dict]:
    """What the captioner's processor makes of a case, the golden tensors, its texts."""
    from PIL import Image

    meta, tensors = golden
    facts = meta["cases"][case]
    wanted = {
        name.removeprefix(f"{case}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{case}.")
    }
    count = len(facts["num_patches_list"])
    views = [[Image.fromarray(wanted[f"image{number}"].numpy())] for number in range(count)]
    texts = [asked(captioner, question) for question in as_list(facts["questions"])]
    made = captioner.processor(text=texts, images=views, padding=True, return_tensors="pt")
    return made, wanted, facts


@pytest.mark.parametrize("case", CASES)
def test_inputs_are_equal(captioner: VlmCaptioner, golden: tuple, case: str) -> None:
    made, wanted, _ = inputs_of(captioner, golden, case)
    for name in ("input_ids", "attention_mask", "pixel_values"):
        assert torch.equal(made[name], wanted[name]), name


@pytest.mark.parametrize("case", CASES)
def test_logits_agree(captioner: VlmCaptioner, golden: tuple, case: str) -> None:
    made, wanted, _ = inputs_of(captioner, golden, case)
    mask = made["attention_mask"]
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)  # as `generate` makes them
    with torch.inference_mode():
        logits = captioner.model(**made, position_ids=positions).logits
    kept = wanted.get("logits", wanted.get("logits_last"))
    shown = mask[:, -kept.shape[1] :].bool()
    assert (logits[:, -kept.shape[1] :] - kept)[shown].abs().max() < LOGITS


@pytest.mark.parametrize("case", CASES)
def test_greedy_texts_are_equal(captioner: VlmCaptioner, golden: tuple, case: str) -> None:
    made, wanted, facts = inputs_of(captioner, golden, case)
    with torch.inference_mode():
        new = captioner.model.generate(**made, max_new_tokens=20)
    new = new[:, made["input_ids"].shape[1] :]
    assert torch.equal(new, wanted["tokens"])
    texts = captioner.processor.batch_decode(new, skip_special_tokens=True)
    assert [text.strip() for text in texts] == as_list(facts["returned"])


@pytest.mark.parametrize("case", ["one", "tiled", "stop"])
def test_the_captioner_answers_with_the_golden_text(
    captioner: VlmCaptioner, golden: tuple, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the same image at once, through the captioner's own way."""
    from PIL import Image

    meta, tensors = golden
    facts = meta["cases"][case]
    request = asked(captioner, facts["questions"])
    monkeypatch.setattr(captioner, "request", lambda question: request)
    view = Image.fromarray(tensors[f"{case}.image0"].numpy())
    answers = captioner.answers([view, view], "as recorded", 20)
    assert [answer.text for answer in answers] == [facts["returned"]] * 2
    end = meta["eos_token_id_used"]
    assert answers[0].finished == (end in tensors[f"{case}.tokens"].tolist()[0])


def test_text_is_cut_into_the_golden_ids(captioner: VlmCaptioner, golden: tuple) -> None:
    """As a prompt begins: with a chat token or a word; the space in front is the template's."""
    meta, _ = golden
    tokenizer = captioner.processor.tokenizer
    probes = {text: ids for text, ids in meta["tokenizer_probes"].items() if text[:1] != " "}
    assert len(probes) > 5
    for text, ids in probes.items():
        start = " " if text.startswith("<|") else ""
        assert tokenizer(start + text).input_ids == ids, text
