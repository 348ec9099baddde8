"""Captions: measured from pixels (`rules`) or written by a model (`vlm`), kept in a `table`, made
vectors (`text`).
"""
