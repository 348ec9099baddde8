"""A region of one's own: yearly Sentinel-2 composites of a bounding box, from any STAC catalog, in
the published layout.
"""
