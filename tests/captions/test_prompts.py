"""Prompts are versioned data: changed words are another version, a mistake is one clear line."""

from pathlib import Path

import pytest

from satjepa.captions.prompts import HERE, load_prompts, names
from satjepa.config import ConfigError

# Changed prompts must be a new version: rows of the old one are kept in the tables.
HASHES = {("earthdial", 1): "a75a070731617554", ("plain", 1): "466abc303dfc2089"}


def test_the_hash_of_a_version_is_the_one_it_was_given() -> None:
    found = {(name, load_prompts(name).version): load_prompts(name).hash for name in names()}
    assert found == HASHES


def test_comments_and_layout_are_no_other_prompts(tmp_path: Path) -> None:
    text = (HERE / "plain.yaml").read_text()
    file = tmp_path / "mine.yaml"
    file.write_text("# mine\n" + text)
    assert load_prompts(str(file)).hash == load_prompts("plain").hash
    file.write_text(text.replace("north up", "south up"))
    assert load_prompts(str(file)).hash != load_prompts("plain").hash


def test_questions_are_the_same_but_for_their_frame() -> None:
    plain = load_prompts("plain")
    earthdial = load_prompts("earthdial")
    assert earthdial.separate == plain.separate and earthdial.together == plain.together
    assert earthdial.frame == "[caption] [s2_rgb_10] <image>\n{question}"
    assert all(token in earthdial.frame for token in earthdial.tokens)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<image>", "", r"mine.yaml: frame: found .*accepted: a text with <image> and {question}"),
        ("{question}", "{questoin}", r"frame: found .*accepted: a text with <image>"),
        ("words: [3, 80]", "words: [3]", r"words: found a shorter list"),
        ("version: 1", "version: 0", r"version: found 0 .*accepted: at least 1"),
        ("tokens_each: 80", "token_each: 80", r"an unknown key.*did you mean tokens_each"),
    ],
)
def test_a_mistake_in_a_file_of_ones_own_is_one_clear_error(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text((HERE / "plain.yaml").read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_prompts(str(file))


def test_an_unknown_name_is_one_clear_error(tmp_path: Path) -> None:
    accepted = "accepted: earthdial, plain, or the path of a YAML file"
    with pytest.raises(ConfigError, match=rf"vlm\.prompts: found 'palin'; {accepted}"):
        load_prompts("palin")
    with pytest.raises(ConfigError, match="found no such file"):
        load_prompts(str(tmp_path / "none.yaml"))
