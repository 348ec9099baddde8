"""One answer, three captions: how it is cut, and when it is not good enough."""

import pytest

from satjepa.captions.sections import cut, good, tidy
from satjepa.contracts import Captions

THREE = Captions(
    "Forest 60 percent, water 40 percent.", "A river runs west to east.", "A wooded valley."
)
ASKED = "Write three sections. INFORMATIVE: which covers. GEOMETRIC: where. SEMANTIC: what."
WRITTEN = [
    "INFORMATIVE: {}\nGEOMETRIC: {}\nSEMANTIC: {}",
    "Informative: {} Geometric: {} Semantic: {}",
    "**Informative:** {}\n\n**Geometric:** {}\n\n**Semantic:** {}",
    "1. INFORMATIVE - {}\n2. GEOMETRIC - {}\n3. SEMANTIC - {}",
    "## Informative: {}\n## Geometric: {}\n## Semantic: {}\n",
    "Here it is:\nINFORMATIVE: {}\n- GEOMETRIC: {}\n- SEMANTIC: {}",
]


@pytest.mark.parametrize("form", WRITTEN)
def test_sections_are_cut_as_models_write_them(form: str) -> None:
    assert cut(form.format(*THREE)) == THREE


@pytest.mark.parametrize("form", WRITTEN)
def test_numbers_at_the_end_of_a_section_stay_whole(form: str) -> None:
    three = Captions("Brightness 0.42", "One road of 3.5", "Built 60.5 to 70.2")
    ended = Captions(*(f"{text}." for text in three))
    assert cut(form.format(*ended)) == ended
    if "\nGEO" in form or "\n\n**Geo" in form:
        assert cut(form.format(*three)) == three


def test_sections_come_in_any_order() -> None:
    informative, geometric, semantic = THREE
    answer = f"SEMANTIC: {semantic}\nINFORMATIVE: {informative}\nGEOMETRIC: {geometric}"
    assert cut(answer) == THREE


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "A forest beside a river.",
        "INFORMATIVE: a. GEOMETRIC: b.",
        "INFORMATIVE: a. GEOMETRIC: b. SEMANTIC: c. SEMANTIC: d.",
        "The informative part: a geometric pattern: semantic.",
    ],
)
def test_another_answer_is_no_three_sections(answer: str) -> None:
    assert cut(answer) is None


LOOP = "water and " * 20
BAD = {
    "too short": THREE._replace(geometric="A river."),
    "empty": THREE._replace(semantic=""),
    "too long": THREE._replace(semantic=" ".join(f"word{n}" for n in range(81))),
    "a loop": THREE._replace(informative=LOOP),
    "twice the same": THREE._replace(geometric=THREE.semantic),
    "the question": THREE._replace(semantic="Write three sections."),
}


@pytest.mark.parametrize("why", BAD)
def test_what_says_nothing_is_not_good(why: str) -> None:
    assert good(THREE, ASKED, (3, 80))
    assert not good(BAD[why], ASKED, (3, 80))


def test_an_answer_is_one_tidy_line() -> None:
    assert tidy(" **A  river,\n40 percent.** ") == "A river, 40 percent."
