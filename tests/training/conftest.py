"""The fixtures of `tiny_run`, for the tests of this folder."""

from tiny_run import backbone, whole  # noqa: F401
