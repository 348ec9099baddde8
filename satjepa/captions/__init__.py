"""Captions: measured from pixels (`rules`) or written by a model (`vlm`, asked with `prompts`; how
EarthDial becomes one: `earthdial`), added (`writing`) to a `table`, made vectors (`embeddings`) and
kept in a `store`. `cover`: what a pixel is covered by.
"""
