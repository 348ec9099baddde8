"""The variant `published`: the networks of the released Sat-JEPA-Diff, with the names of its
checkpoints.
"""

STEPS = 20  # of the sampler, as the model card calls it
STRENGTH = 0.35  # noise level that every published forecast starts from: the rest is year t's image
