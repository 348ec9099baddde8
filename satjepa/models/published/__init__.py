"""The variant `published`: the networks of the released Sat-JEPA-Diff, with the names of its
checkpoints.
"""
