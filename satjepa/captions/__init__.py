"""Captions: measured from pixels (`rules`) or written by a model (`vlm`), kept in a `table`, made
vectors (`embeddings`) and kept in a `store`. `cover`: what a pixel is covered by.
"""
