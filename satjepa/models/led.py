"""Members that are each led by a sentence of its own.

A caption of t+1 is drawn for each member and place, embedded, and given to the generator in place
of the forecast embedding, which is the mean of what may come: the ensemble then spreads over what
may be said of next year, and each member comes with the sentence that made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from satjepa.captions.embeddings import Embed
from satjepa.contracts import CAPTION_KINDS, SEMANTIC, Batch, Captions
from satjepa.models.caption_tensors import fitted
from satjepa.models.caption_writer import CaptionWriter, Memory
from satjepa.models.joint import JointModel

Sentences = list[list[str]]  # of each member, of each place
AT_ONCE = 64  # texts that are embedded together


@dataclass(frozen=True)
class Led:
    """A `Forecaster` whose members are led by captions that a writer draws.

    joint: the model. writer: trained on its tokens (`satjepa.training.writer`). embed: captions to
    what the model reads. spell: token ids (n,T) to texts. temperature, top_p: of drawing
    (`satjepa.models.caption_writer.chosen`).
    """

    joint: JointModel
    writer: CaptionWriter
    embed: Embed
    spell: Callable[[Tensor], list[str]]
    temperature: float = 1.0
    top_p: float = 1.0

    @property
    def trained_on(self) -> Any:
        """As a `Forecaster` has it: the split of the model, and of its writer."""
        return self.joint.trained_on

    def forecast(self, batch: Batch, samples: int = 1, seed: int = 0) -> Tensor:
        """As `JointModel.forecast`: the same noise, other words. (samples,B,3,H,W)."""
        return self.with_sentences(batch, samples, seed)[0]

    def with_sentences(
        self, batch: Batch, samples: int = 1, seed: int = 0
    ) -> tuple[Tensor, Sentences]:
        """The same, and the sentence that led each member of each place."""
        sentences = self.write(batch, samples, seed)
        members = led_by(self.joint, batch, sentences, self.embed, seed)
        return members, sentences

    def write(self, batch: Batch, samples: int = 1, seed: int = 0) -> Sentences:
        """Captions of t+1: `samples` for each of B places, drawn. A caption depends on (seed,
        number, place) alone.
        """
        memory = self._study(batch)
        length = self.writer.sizes.length
        sentences = []
        for number in range(samples):
            uniform = place_uniform(batch["meta"], number, seed, length).to(memory.mask.device)
            ids = self.writer.write(memory, uniform, self.temperature, self.top_p)
            sentences.append(self.spell(ids))
        return sentences

    def write_likeliest(self, batch: Batch) -> list[str]:
        """The caption of t+1 of each of B places whose every word is the likeliest."""
        return self.spell(self.writer.write(self._study(batch)))

    @torch.no_grad()
    def _study(self, batch: Batch) -> Memory:
        return self.writer.study(*known(self.joint, batch, self.writer.sizes.read))


@torch.no_grad()
def tokens_ahead(joint: JointModel, batch: Batch) -> Tensor:
    """Tokens of t+1 (B,N,D), by the averaged weights, those that forecasts are made with."""
    from accelerate.utils import send_to_device

    names = ("rgb_t", "history", "history_valid")
    batch = send_to_device({name: batch[name] for name in names}, joint.device)
    with joint.averaged():
        tokens, _ = joint.predict(batch["rgb_t"], joint.remember(batch))
    return tokens


def known(joint: JointModel, batch: Batch, read: int) -> tuple[dict[str, Tensor], Tensor]:
    """What a writer is told: semantic(t), `read` words of it, and tokens(t+1) (B,N,D)."""
    text = batch["text_t"].items()
    semantic = {name: value[:, SEMANTIC].to(joint.device) for name, value in text}
    return fitted(semantic, read), tokens_ahead(joint, batch)


def led_by(
    joint: JointModel, batch: Batch, sentences: Sequence[Sequence[str]], embed: Embed,
    seed: int = 0, first: int = 0,
) -> Tensor:  # fmt: skip
    """Forecasts (S,B,3,H,W), each member of each place led by its semantic caption of t+1, S lists
    of B; the noise is that of the members from number `first` on in `JointModel.forecast`.
    """
    different = sorted({text for texts in sentences for text in texts})
    number = {text: row for row, text in enumerate(different)}
    embedded = _embedded(different, embed)
    members = []
    for member, texts in enumerate(sentences, start=first):
        rows = torch.tensor([number[text] for text in texts])
        words = {name: value[rows.to(value.device)] for name, value in embedded.items()}
        members.append(joint.forecast(_told(batch, words), 1, seed, first=member)[0])
    return torch.stack(members)


def _embedded(texts: Sequence[str], embed: Embed) -> dict[str, Tensor]:
    """Semantic captions as a model reads them (n,3,...), the other two empty."""
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(texts), AT_ONCE):
        some = [Captions("", "", text) for text in texts[start : start + AT_ONCE]]
        for name, value in embed(some).items():
            parts.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in parts.items()}


def _told(batch: Batch, words: dict[str, Tensor]) -> Batch:
    """The batch with semantic captions (B,3,...) to lead it, beside what else was given."""
    given = torch.zeros(len(batch["meta"]), len(CAPTION_KINDS), dtype=torch.bool)
    if "text_given" in batch:
        given = batch["is_given"].clone()
        others = batch["text_given"]
        length = words["mask"].shape[-1]
        others = {n: v.to(words[n].device) for n, v in fitted(others, length).items()}
        words = {
            n: torch.cat([others[n][:, :SEMANTIC], v[:, SEMANTIC:]], 1) for n, v in words.items()
        }
    given[:, SEMANTIC] = True
    return {**batch, "text_given": words, "is_given": given}


def place_uniform(metas: list[dict], sample: int, seed: int, count: int) -> Tensor:
    """Uniform numbers (B,count) in [0, 1), each place's from a generator of its own, as
    `satjepa.models.flow.patch_noise` has it.
    """
    rows = []
    for meta in metas:
        place = [meta.get("preset", ""), *(meta[key] for key in ("region", "year", "x", "y"))]
        key = repr(["words", seed, sample, *map(str, place)])
        digest = hashlib.sha256(key.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        rows.append(torch.rand(count, generator=generator))
    return torch.stack(rows)
