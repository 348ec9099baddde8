"""A region of one's own: images and embeddings of a place, fetched into the published layout."""
