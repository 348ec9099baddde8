"""Captions written by a vision-language model: the same three texts as `rules`, asked for in words.

Any checkpoint that transformers loads with `AutoModelForImageTextToText` and `AutoProcessor` will
do. One that brings its own model code, as EarthDial's may, needs `trust_remote_code=True`: pin its
`revision`, for that code runs on your machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from satjepa.captions.cover import display
from satjepa.contracts import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPT_VERSION = 1
_IMAGE = "This is a Sentinel-2 satellite image at 10 m per pixel, north up. In at most 40 words, "
PROMPTS = Captions(
    informative=_IMAGE
    + "state which land covers it shows and the share of each in percent, how vigorous the "
    "vegetation is, and how bright the image is.",
    geometric=_IMAGE
    + "describe its geometry: number, size and orientation of the parcels, roads and rivers and "
    "where they run, and where the main covers lie.",
    semantic=_IMAGE
    + "say what kind of place it is, what each quarter (northwest, northeast, southwest, "
    "southeast) shows, and any sign of change such as clearings, building sites, bare shores or "
    "burnt ground.",
)


class VlmNotFound(OSError):
    """The vision-language model could not be read; the message says how to get it."""


class VlmCaptioner:
    """A captioner for `table.caption_patches`: rgb (3,H,W) in [0,1] and valid to three texts.
    Greedy, so repeatable.
    """

    def __init__(self, model: torch.nn.Module, processor: object, max_new_tokens: int = 80) -> None:
        self.model = model
        self.processor = processor
        self.max_new_tokens = max_new_tokens
        processor.tokenizer.padding_side = "left"  # the answers start where the prompts end

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        revision: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
        max_new_tokens: int = 80,
    ) -> VlmCaptioner:
        """Load the model of a folder or hub repository; VlmNotFound where it cannot be had."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        where = {
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "local_files_only": local_files_only,
        }
        try:
            processor = AutoProcessor.from_pretrained(path, **where)
            model = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype, **where)
        except (OSError, ValueError) as error:
            raise VlmNotFound(
                f"no vision-language model in {path!s}: download it once (`hf download {path!s}`), "
                "give a local folder, or set captions.captioner to rules, which needs no weights. "
                f"({str(error).splitlines()[0]})"
            ) from error
        return cls(model.eval().to(device), processor, max_new_tokens)

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray, valid: np.ndarray | None = None) -> Captions:
        """Three captions of one image; what is not valid is shown black."""
        image = _picture(rgb, valid)
        prompts = [self._prompt(question) for question in PROMPTS]
        inputs = self.processor(
            text=prompts, images=[[image]] * len(prompts), padding=True, return_tensors="pt"
        )
        inputs = inputs.to(self.model.device, self.model.dtype)  # casts the pixels, leaves the ids
        tokens = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        answers = self.processor.batch_decode(
            tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return Captions(*(" ".join(answer.split()) for answer in answers))

    def _prompt(self, question: str) -> str:
        message = {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": question}],
        }
        return self.processor.apply_chat_template([message], add_generation_prompt=True)


def _picture(rgb: np.ndarray, valid: np.ndarray | None) -> Image:
    from PIL import Image

    view = display(rgb, "display")
    view = view if valid is None else view * valid
    return Image.fromarray(np.round(255 * view).astype(np.uint8).transpose(1, 2, 0))
