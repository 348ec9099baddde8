"""A few captions, which tests of text encoders are trained on and asked about."""

CORPUS = [
    "Forest 40 percent, grass 25. Strong vigour, dark.",
    "Four large parcels, on an upright grid. Soft edges.",
    "Farmland with forest. Northwest forest and grass, southeast water. Change: clearing "
    "northwest.",
    "No data.",
]
LENGTH = 24
