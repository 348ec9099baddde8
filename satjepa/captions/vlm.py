"""Captions written by a vision-language model: the same three texts as `rules`, asked for in words.

Any checkpoint will do that transformers itself loads with `AutoModelForImageTextToText` and
`AutoProcessor`, by folder or hub id. Code that a repository brings is never run
(`trust_remote_code` is off): EarthDial's has none, its weights are for a package of its own, and
`satjepa captions import` makes a folder of them that transformers loads (`earthdial`).

The hybrid of the model card: one answer with three sections, checked (`sections`), and three
answers for an image where it is not good enough. Both are asked of a batch of images at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from satjepa.captions.cover import display
from satjepa.captions.earthdial import origin_of
from satjepa.captions.earthdial_config import MODEL_TYPE
from satjepa.captions.outcomes import Failed, Outcome, Picture, Written
from satjepa.captions.prompts import IMAGE, QUESTION, Prompts, load_prompts
from satjepa.captions.sections import cut, good, tidy
from satjepa.contracts import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

PLAIN = "plain"  # the prompts of a model that says nothing of its own
Content = list[dict[str, str]]


class VlmNotFound(OSError):
    """The vision-language model could not be read; the message says how to get it."""


class Answer(NamedTuple):
    """What a model said, without special tokens, and whether it had come to its end."""

    text: str
    finished: bool


class VlmCaptioner:
    """A captioner for `writing.caption_patches` with a batch. Greedy, so repeatable.

    prompts: what it is asked. about: provenance of its rows, by column (`table.PROVENANCE`).
    """

    def __init__(
        self,
        model: torch.nn.Module,
        processor: object,
        prompts: Prompts,
        about: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.prompts = prompts
        self.about = dict(about or {})
        processor.tokenizer.padding_side = "left"  # the answers start where the prompts end
        lacking = [token for token in prompts.tokens if not self._is_one_token(token)]
        if lacking:
            raise VlmNotFound(
                f"the prompts have {', '.join(lacking)}, which this model's tokenizer does not "
                "have as one token: set vlm.prompts to those of another model, such as plain"
            )

    def _is_one_token(self, text: str) -> bool:
        return text in self.processor.tokenizer.get_vocab()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        local_files_only: bool = False,
        prompts: str | None = None,
    ) -> VlmCaptioner:
        """Load the model of a folder or hub repository; VlmNotFound where it cannot be had.

        revision: commit of a hub repository. dtype: by default bfloat16 on a GPU, where that is
        quick, and float32 elsewhere. prompts: name or file; by default those that fit the model.
        """
        from transformers import AutoModelForImageTextToText, __version__

        device = torch.device(device)
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        asked = load_prompts(prompts or default_prompts(path))
        where = {"revision": revision, "local_files_only": local_files_only}
        try:
            require_native(path, where)
            processor = _processor(path, where)
            # `dtype` here, not `.to(dtype)`, which would round the frequencies of RoPE, too
            model = AutoModelForImageTextToText.from_pretrained(
                path, dtype=dtype, trust_remote_code=False, **where
            )
        except VlmNotFound:
            raise
        except (OSError, ValueError) as error:
            raise VlmNotFound(_advice(path, str(error))) from error
        about = {
            "revision": revision or _revision(path, model),
            "prompts": asked.hash,
            "library": f"transformers {__version__}",
        }
        return cls(model.eval().to(device), processor, asked, about)

    def __call__(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Three captions of each image, (3,H,W) in [0,1]; what is not valid is shown black. An
        image to which nothing is answered has failed.
        """
        views = [_view(rgb, valid) for rgb, valid in pictures]
        asked = self.prompts
        answers = self.answers(views, asked.together, asked.tokens_together)
        together = [self._three(answer) for answer in answers]
        rest = [number for number, three in enumerate(together) if three is None]
        separate = iter(self._separate([views[number] for number in rest]))
        return [
            self._outcome(next(separate), "separate")
            if three is None
            else self._outcome(three, "together")
            for three in together
        ]

    def _three(self, answer: Answer) -> Captions | None:
        """The sections of an answer, if it had come to its end and they are good."""
        three = cut(answer.text) if answer.finished else None
        if three is None or not good(three, self.prompts.together, self.prompts.words):
            return None
        return three

    def _separate(self, views: Sequence[Image]) -> list[Captions]:
        """Three answers to each image, each question asked of all images at once."""
        if not views:
            return []
        asked = self.prompts
        columns = [self.answers(views, question, asked.tokens_each) for question in asked.separate]
        texts = [_tidy_texts(column) for column in columns]
        return [Captions(*three) for three in zip(*texts, strict=True)]

    def _outcome(self, captions: Captions, calls: str) -> Outcome:
        empty = [kind for kind, text in captions._asdict().items() if not text]
        if empty:
            return Failed(f"nothing was answered for {', '.join(empty)}")
        today = datetime.now(UTC).date().isoformat()
        return Written(captions, self.about | {"calls": calls, "date": today})

    @torch.inference_mode()
    def answers(self, views: Sequence[Image], question: str, tokens: int) -> list[Answer]:
        """What is answered to a question about each image, in at most so many tokens."""
        texts = [self.request(question)] * len(views)
        inputs = self.processor(
            text=texts,
            images=[[view] for view in views],
            padding=True,
            return_tensors="pt",
            add_special_tokens=not self._begins(texts[0]),
        )
        inputs = inputs.to(self.model.device, self.model.dtype)  # casts the pixels, leaves the ids
        new = self.model.generate(
            **inputs, max_new_tokens=tokens, min_new_tokens=1, do_sample=False, num_beams=1
        )[:, inputs["input_ids"].shape[1] :]
        decoded = self.processor.batch_decode(new, skip_special_tokens=True)
        end = self.model.generation_config.eos_token_id
        ends = set(end if isinstance(end, list) else [end])
        return [
            Answer(text.strip(), not ends.isdisjoint(ids))
            for text, ids in zip(decoded, new.tolist(), strict=True)
        ]

    def _begins(self, text: str) -> bool:
        """Whether a conversation holds the token of a beginning already, as some templates have
        it: a second one would be another question.
        """
        first = getattr(self.processor.tokenizer, "bos_token", None)
        return bool(first) and text.startswith(first)

    def request(self, question: str) -> str:
        """A question in its frame and in the conversation that the model was trained with, up to
        where its answer begins.
        """
        message = {"role": "user", "content": _content(self.prompts.frame, question)}
        return self.processor.apply_chat_template([message], add_generation_prompt=True)


def _tidy_texts(answers: Sequence[Answer]) -> list[str]:
    return [tidy(answer.text) for answer in answers]


def default_prompts(path: str | Path) -> str:
    """The name of the prompts that fit a model: EarthDial's for what was imported from it."""
    origin = origin_of(path)
    return origin["prompts"] if origin else PLAIN


def _content(frame: str, question: str) -> Content:
    """What stands before the image, the image, what stands after it. A model's own conversation
    breaks the line after an image that comes first.
    """
    before, after = frame.split(IMAGE)
    if not before:
        after = after.removeprefix("\n")
    parts = [
        {"type": "text", "text": before.replace(QUESTION, question)},
        {"type": "image"},
        {"type": "text", "text": after.replace(QUESTION, question)},
    ]
    return [part for part in parts if part["type"] == "image" or part["text"]]


def _processor(path: str | Path, where: Mapping[str, object]) -> object:
    from transformers import AutoImageProcessor, AutoProcessor

    processor = AutoProcessor.from_pretrained(path, trust_remote_code=False, **where)
    if not hasattr(processor, "image_processor"):
        raise ValueError("its processor takes no images")
    if origin_of(path):
        # resized by PIL as in EarthDial's training; torchvision's differ by a level or two of 255
        processor.image_processor = AutoImageProcessor.from_pretrained(path, backend="pil")
    return processor


def require_native(path: str | Path, where: Mapping[str, object]) -> None:
    """VlmNotFound, with what to do, for EarthDial's checkpoint as it is published."""
    from transformers import PreTrainedConfig

    raw, _ = PreTrainedConfig.get_config_dict(path, **where)
    if raw.get("model_type") == MODEL_TYPE:
        raise VlmNotFound(
            f"{path!s} has EarthDial's own layout, which transformers does not know, and code that "
            f"a repository brings is not run: `satjepa captions import {path!s} FOLDER` makes a "
            "folder for captions.captioner"
        )


def _advice(path: str | Path, error: str) -> str:
    cure = f"download it once (`hf download {path!s}`), "
    return (
        f"no vision-language model in {path!s}: {'' if Path(path).is_dir() else cure}"
        "give a local folder, or set captions.captioner to rules, which needs no weights. "
        f"({error.strip().splitlines()[0] if error.strip() else 'no reason given'})"
    )


def _revision(path: str | Path, model: torch.nn.Module) -> str:
    """The commit of a hub repository, or the hash of a folder."""
    if not Path(path).is_dir():
        return getattr(model.config, "_commit_hash", None) or ""
    return folder_revision(path)


def folder_revision(path: str | Path) -> str:
    """The hash of the files that lie in a folder, not of those in folders below it."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(entry for entry in Path(path).iterdir() if entry.is_file()):
        with open(file, "rb") as content:
            digest.update(file.name.encode() + hashlib.file_digest(content, "blake2b").digest())
    return f"blake2b:{digest.hexdigest()}"


def _view(rgb: np.ndarray, valid: np.ndarray | None) -> Image:
    from PIL import Image

    shown = display(rgb, "display")
    shown = shown if valid is None else shown * valid
    return Image.fromarray(np.round(255 * shown).astype(np.uint8).transpose(1, 2, 0))
