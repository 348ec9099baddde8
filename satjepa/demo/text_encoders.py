"""Tokenizers trained on the caption corpus, and tiny CLIPs and T5 beside them: the text encoders of
the demo.
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import torch

from satjepa.captions.embeddings import CLIP_LENGTH


def train_tokenizers(corpus: Iterable[str], folder: str | Path, words: int = 600) -> None:
    """Make tokenizers for a closed vocabulary: CLIP's BPE (tokenizer/, tokenizer_2/) and T5's
    unigram (tokenizer_3/).

    Args:
        corpus: the captions.
        folder: of a diffusers model; loads with `CLIPTokenizer` and `T5Tokenizer` (or
            `AutoTokenizer`) of transformers.
        words: at most so many of the most frequent words are one T5 token each; others are spelled,
            none is unknown.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer, T5Tokenizer

    corpus = list(corpus)
    folder = Path(folder)
    blank = CLIPTokenizer().backend_tokenizer
    clean = blank.normalizer.normalize_str
    cut = blank.pre_tokenizer.pre_tokenize_str
    merges = _merges(Counter(word for text in corpus for word, _ in cut(clean(text))), 800)
    letters = sorted(ByteLevel.alphabet())
    vocab = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(a + "</w>" for a in letters),
        *map("".join, merges),
    ]
    clip = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocab)},
        merges=merges,
        model_max_length=CLIP_LENGTH,
    )
    counts = Counter(word for text in corpus for word in _words(text))
    most = sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))[:words]
    total = counts.total()
    scores = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0} | dict.fromkeys(
        ["▁", *string.printable.strip()], -12.0
    )
    scores |= {word: math.log((n + 1) / (total + 1)) for word, n in most}
    t5 = T5Tokenizer(vocab=list(scores.items()), extra_ids=0)
    for name, tokenizer in (("tokenizer", clip), ("tokenizer_2", clip), ("tokenizer_3", t5)):
        tokenizer.save_pretrained(folder / name)


def _merges(counts: Counter[str], limit: int) -> list[tuple[str, str]]:
    """Byte-pair merges in the order they were learnt, at most `limit`; ties go to the later in the
    alphabet.

    (The trainer of `tokenizers` breaks ties by the order of a hash map, so that no two runs of it
    agree.)
    """
    words = [([*word[:-1], word[-1] + "</w>"], n) for word, n in counts.items()]
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, n in words:
            for pair in pairwise(parts):
                pairs[pair] += n
        if not pairs:
            break
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        for parts, _ in words:
            for i in range(len(parts) - 1, 0, -1):
                if (*parts[i - 1 : i], *parts[i : i + 1]) == merges[-1]:
                    parts[i - 1 : i + 1] = ["".join(merges[-1])]
    return merges


def _words(text: str) -> list[str]:
    """The T5 tokens of a text: words that carry their leading space as ▁, and punctuation."""
    out = []
    for word in text.split():
        bare = word.rstrip(string.punctuation)
        out += ["▁" + bare, *word[len(bare) :]] if bare else list(word)
    return out


def build_tiny_text_encoders(folder: str | Path, seed: int) -> None:
    """Write random tiny encoders beside the tokenizers of `folder`: text_encoder/, text_encoder_2/,
    text_encoder_3/.

    CLIP: hidden 64, projection 64, 2 layers; T5: width 128, 2 layers, 4 heads. So hidden is (L,
    128) and pooled (128,).
    """
    from transformers import (
        AutoTokenizer,
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        T5Config,
        T5EncoderModel,
    )

    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for suffix, act in (("", "quick_gelu"), ("_2", "gelu")):
            tokens = AutoTokenizer.from_pretrained(folder / f"tokenizer{suffix}")
            config = CLIPTextConfig(
                vocab_size=len(tokens),
                hidden_size=64,
                intermediate_size=128,
                projection_dim=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=CLIP_LENGTH,
                hidden_act=act,
                bos_token_id=tokens.bos_token_id,
                eos_token_id=tokens.eos_token_id,
                pad_token_id=tokens.pad_token_id,
            )
            CLIPTextModelWithProjection(config).save_pretrained(folder / f"text_encoder{suffix}")
        tokens = AutoTokenizer.from_pretrained(folder / "tokenizer_3")
        config = T5Config(
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
        T5EncoderModel(config).save_pretrained(folder / "text_encoder_3")
