"""What one version of YAML reads as another value than the next: nothing of ours."""

import re

import pytest
import yaml
from reach import REPO
from ruamel.yaml import YAML

from satjepa.config.yaml12 import YamlError, dumps, loads

PARAMS = sorted(REPO.glob("params*.yaml"))
# read as something else by YAML 1.1, by YAML 1.2, or by both
ODD = ("no", "on", "off", "Yes", "null", "~", "1e-3", "1.0e-3", "010", "0o17", "1_000", "1:30",
       "0x1F", "2024-01-01", "", "a: b", "[1", "São Tomé", "true", ".inf", "=", "- a")  # fmt: skip


def same(one: object, other: object) -> bool:
    """Equal in value and in type, down to the leaves: True is not 1, and 1 is not 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.name)
def test_a_params_file_is_read_alike_by_every_reader_and_after_dvc_wrote_it(path, tmp_path):
    """PyYAML as by foreign tools, ruamel as by DVC; `dvc exp run -S` writes the file anew."""
    from dvc.utils.serialize import modify_yaml

    text = path.read_text()
    values = loads(text)
    assert same(yaml.safe_load(text), values)
    copy = tmp_path / path.name
    copy.write_text(text)
    with modify_yaml(str(copy)) as written:
        written["seed"] = 7
    assert re.search("^seed: 7", copy.read_text(), re.MULTILINE)
    assert same(loads(copy.read_text()), values | {"seed": 7})
    assert same(yaml.safe_load(copy.read_text()), values | {"seed": 7})


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("on", "on"), ("off", "off"), ("1e-3", 1e-3), ("010", 10), ("0o17", 15),
     ("true", True), ("null", None), ("'no'", "no")],
)  # fmt: skip
def test_yaml_is_read_as_dvc_reads_it(text: str, value: object):
    from dvc.utils.serialize import loads_yaml

    assert same(loads(f"a: {text}"), {"a": value})
    assert same(loads_yaml(f"a: {text}"), {"a": value})


def test_what_is_written_is_read_alike():
    values = {"texts": list(ODD), "numbers": [1e-5, 1e20, 0.1, 3, True, None], "no": {"on": []}}
    written = dumps(values)
    for read in (loads, yaml.safe_load, YAML(typ="rt").load):
        assert same(plain(read(written)), values)
    assert "São Tomé" in written


def plain(value: object) -> object:
    """Round-trip types as the plain ones."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    kinds = [kind for kind in (bool, int, float, str) if isinstance(value, kind)]
    return kinds[0](value) if kinds else value


def test_what_is_no_yaml_is_one_line():
    with pytest.raises(YamlError, match=r"^[^\n]*line 2[^\n]*$"):
        loads("a: 1\nb: [1, 2\n")
