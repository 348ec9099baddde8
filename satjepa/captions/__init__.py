"""Captions of images: measured from pixels (`rules`) or written by a model (`vlm`), kept in a table (`table`), turned into vectors (`text`)."""
