"""Prompts of vision-language models: versioned data, chosen by name, one YAML file each beside this
one; a file of one's own by its path.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from satjepa.config import ConfigError
from satjepa.config.errors import first_mistake, refuse
from satjepa.config.fields import FROM_LIST, Count, Pair, Section, Text
from satjepa.config.files import read_yaml
from satjepa.contracts import Captions

HERE = Path(__file__).parent
IMAGE = "<image>"
QUESTION = "{question}"
KEY = "vlm.prompts"  # of params.yaml, which names them


class Prompts(Section):
    """What a model is asked, and what of its answers is taken.

    frame: the text of a request, with `<image>` and `{question}` once each. tokens: those of the
    frame that must be one token each of the model's tokenizer. words: how many a section of the
    answer to `together` has, from .. to.
    """

    version: Count
    frame: Text
    tokens: Annotated[tuple[Text, ...], FROM_LIST, Field()]
    together: Text
    informative: Text
    geometric: Text
    semantic: Text
    tokens_together: Count
    tokens_each: Count
    words: Pair[Count]

    @model_validator(mode="after")
    def _holds_image_and_question_once(self) -> Self:
        if self.frame.count(IMAGE) != 1 or self.frame.count(QUESTION) != 1:
            raise refuse("frame", self.frame, f"a text with {IMAGE} and {QUESTION}, once each")
        return self

    @property
    def separate(self) -> Captions:
        """The three questions, in the order of captions."""
        return Captions(self.informative, self.geometric, self.semantic)

    @property
    def hash(self) -> str:
        """Of all that is asked and taken: 16 hexadecimal digits, whatever comments the file has."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def names() -> list[str]:
    """The names of the prompts that come with the package."""
    return sorted(file.stem for file in HERE.glob("*.yaml"))


def load_prompts(name: str) -> Prompts:
    """The prompts of a name, or of a YAML file by its path; ConfigError names what is accepted."""
    own = name.endswith((".yaml", ".yml"))
    file = Path(name) if own else HERE / f"{name}.yaml"
    if not own and name not in names():
        raise ConfigError(KEY, repr(name), f"{', '.join(names())}, or the path of a YAML file")
    values: Any = read_yaml(file)
    try:
        return Prompts.model_validate(values)
    except ValidationError as error:
        mistake = first_mistake(Prompts, error)
        mistake.source = file
        raise mistake from None
