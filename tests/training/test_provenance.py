"""Headers of checkpoints: settings in older words."""

import copy

from reach import REPO

from satjepa.config import from_dict, load_params
from satjepa.training import provenance


def test_a_precision_in_an_older_word_is_read() -> None:
    """`precision: "no"`, which YAML 1.1 takes for false, is float32."""
    settings = load_params(REPO / "params.yaml", **{"train.precision": "float32"}).as_dict()
    older = copy.deepcopy(settings)
    older["train"]["precision"] = "no"
    old, new = (provenance.make_header(config, "s", "b") for config in (older, settings))
    assert from_dict(provenance.settings_of(old)).train.precision == "float32"
    assert old["config"]["train"]["precision"] == "no"  # the header itself stays as it is
    assert provenance.differences(old, new) == []
    other = settings | {"train": settings["train"] | {"precision": "bf16"}}
    (line,) = provenance.differences(old, provenance.make_header(other, "s", "b"))
    assert line == "train.precision: float32 in the checkpoint, bf16 here"
