"""The text encoders of the demo: tokenizers trained on the caption corpus, tiny CLIPs and a T5."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from satjepa.captions.embeddings import CLIP_LENGTH
from satjepa.paths import readable

if TYPE_CHECKING:
    from transformers import (
        CLIPTextConfig,
        CLIPTokenizer,
        PreTrainedTokenizerBase,
        T5Config,
        T5Tokenizer,
    )


def train_tokenizers(corpus: Iterable[str], folder: str | Path, words: int = 600) -> None:
    """Make tokenizers for a closed vocabulary: CLIP's BPE and T5's unigram.

    CLIP's goes to tokenizer/ and tokenizer_2/, T5's to tokenizer_3/.

    Args:
        corpus: the captions.
        folder: of a diffusers model; loads with `CLIPTokenizer` and `T5Tokenizer` (or
            `AutoTokenizer`) of transformers.
        words: at most so many of the most frequent words are one T5 token each; others are spelled,
            none is unknown.
    """
    corpus = list(corpus)
    folder = Path(folder)
    clip = _clip_tokenizer(corpus)
    t5 = _t5_tokenizer(corpus, words)
    for name, tokenizer in (("tokenizer", clip), ("tokenizer_2", clip), ("tokenizer_3", t5)):
        tokenizer.save_pretrained(folder / name)


def _clip_tokenizer(corpus: list[str], limit: int = 800) -> CLIPTokenizer:
    """CLIP's tokenizer with at most `limit` merges of its own."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    blank = CLIPTokenizer().backend_tokenizer
    counts: Counter[str] = Counter()
    for text in corpus:
        clean = blank.normalizer.normalize_str(text)
        counts.update(word for word, _ in blank.pre_tokenizer.pre_tokenize_str(clean))
    merges = _merges(counts, limit)
    letters = sorted(ByteLevel.alphabet())
    vocab = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(letter + "</w>" for letter in letters),  # as the last one of a word
        *map("".join, merges),
    ]
    numbers = {token: number for number, token in enumerate(vocab)}
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=CLIP_LENGTH)


def _t5_tokenizer(corpus: list[str], words: int) -> T5Tokenizer:
    """T5's tokenizer, with the most frequent words as tokens and single letters for the rest."""
    from transformers import T5Tokenizer

    counts = Counter(word for text in corpus for word in _words(text))
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:words]
    total = counts.total()
    scores = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0}
    # Spelling is always dearer than a word that is known.
    scores |= dict.fromkeys(["▁", *string.printable.strip()], -12.0)
    scores |= {word: math.log((count + 1) / (total + 1)) for word, count in frequent}
    return T5Tokenizer(vocab=list(scores.items()), extra_ids=0)


def _merges(counts: Counter[str], limit: int) -> list[tuple[str, str]]:
    """Byte-pair merges in the order they were learnt, at most `limit`.

    Ties go to the later in the alphabet. (The trainer of `tokenizers` breaks ties by the order of a
    hash map, so that no two runs of it agree.)
    """
    words = [([*word[:-1], word[-1] + "</w>"], count) for word, count in counts.items()]
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, count in words:
            for pair in pairwise(parts):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for parts, _ in words:
            # from the end, so that a merge does not shift what is still to be looked at
            for i in range(len(parts) - 1, 0, -1):
                if tuple(parts[i - 1 : i + 1]) == best:
                    parts[i - 1 : i + 1] = ["".join(best)]
    return merges


def _words(text: str) -> list[str]:
    """The T5 tokens of a text: words that carry their leading space as ▁, and punctuation."""
    tokens = []
    for word in text.split():
        bare = word.rstrip(string.punctuation)
        if bare:
            tokens.append("▁" + bare)
        tokens.extend(word[len(bare) :])
    return tokens


def build_tiny_text_encoders(folder: str | Path, seed: int) -> None:
    """Write random tiny encoders beside the tokenizers of `folder`.

    text_encoder/ and text_encoder_2/, CLIP: hidden 64, projection 64, 2 layers; text_encoder_3/,
    T5: width 128, 2 layers, 4 heads. So hidden is (L, 128) and pooled (128,).
    """
    from transformers import AutoTokenizer, CLIPTextModelWithProjection, T5EncoderModel

    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for suffix, activation in (("", "quick_gelu"), ("_2", "gelu")):
            tokens = AutoTokenizer.from_pretrained(folder / f"tokenizer{suffix}")
            clip = CLIPTextModelWithProjection(_clip_config(tokens, activation))
            clip.save_pretrained(folder / f"text_encoder{suffix}")
        tokens = AutoTokenizer.from_pretrained(folder / "tokenizer_3")
        T5EncoderModel(_t5_config(tokens)).save_pretrained(folder / "text_encoder_3")
    readable(folder)


def _clip_config(tokens: PreTrainedTokenizerBase, activation: str) -> CLIPTextConfig:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        projection_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CLIP_LENGTH,
        hidden_act=activation,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )


def _t5_config(tokens: PreTrainedTokenizerBase) -> T5Config:
    from transformers import T5Config

    return T5Config(
        vocab_size=len(tokens),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokens.pad_token_id,
        eos_token_id=tokens.eos_token_id,
    )
