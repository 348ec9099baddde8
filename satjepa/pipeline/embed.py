"""The embedding stage's texts: every different caption, through the backbone's text encoders, once.

python -m satjepa.pipeline.embed                         in one process, as notebook 03 does
accelerate launch -m satjepa.pipeline.embed              on all GPUs of a machine
"""

from __future__ import annotations

from satjepa.assemble import captions_file, load_text_encoders, text_folder
from satjepa.captions.store import TextStore
from satjepa.captions.table import lookup
from satjepa.config import Params, load_params
from satjepa.data.share import Share


def embed_all(params: Params, progress: bool = True) -> TextStore:
    """Add to the store of the captioner's texts (`text_folder`) what it lacks, and open it."""
    share = Share.mine()
    c = params.captions
    captions = lookup(captions_file(params), c.captioner, c.prompt_version)
    texts = {text for three in captions.values() for text in three}
    return TextStore.write(
        text_folder(params),
        texts,
        load_text_encoders(params),
        c.max_length,
        progress=progress,
        share=share,
    )


if __name__ == "__main__":
    embed_all(load_params())
