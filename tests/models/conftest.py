"""The fixtures of `model_fixtures`, for the tests of this folder."""

from model_fixtures import *  # noqa: F403
