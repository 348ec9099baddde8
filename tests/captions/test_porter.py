"""Stems: Porter's own examples, step by step, and NLTK's extensions."""

import pytest

from satjepa.captions.porter import stem

PORTER = """caresses caress ponies poni caress caress cats cat feed feed agreed agre plastered plaster bled bled
motoring motor sing sing conflated conflat troubled troubl sized size hopping hop tanned tan falling fall hissing hiss
fizzed fizz failing fail filing file sky sky relational relat conditional condit rational ration valenci valenc
hesitanci hesit digitizer digit conformabli conform radicalli radic differentli differ vileli vile analogousli analog
vietnamization vietnam predication predic operator oper feudalism feudal decisiveness decis hopefulness hope
callousness callous formaliti formal sensitiviti sensit sensibiliti sensibl triplicate triplic formative form
formalize formal electriciti electr electrical electr hopeful hope goodness good revival reviv allowance allow
inference infer airliner airlin gyroscopic gyroscop adjustable adjust defensible defens irritant irrit replacement
replac adjustment adjust dependent depend adoption adopt homologou homolog communism commun activate activ
angulariti angular homologous homolog effective effect bowdlerize bowdler probate probat rate rate cease ceas
controll control roll roll"""
EXTENDED = """flies fli dies die skies sky dying die news news tied tie spied spi enjoy enjoy happy happi by by us us
archaeology archaeolog fully fulli hopefully hope sensationally sensat aging age"""


@pytest.mark.parametrize("words", [PORTER, EXTENDED], ids=["porter", "nltk"])
def test_stems(words):
    words = words.split()
    assert [stem(word) for word in words[::2]] == words[1::2]
