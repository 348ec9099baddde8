"""YAML 1.2, in which `no`, `on` and `off` are words, 1e-3 is a number and 010 is ten.

DVC reads and writes params.yaml and dvc.lock so. PyYAML reads YAML 1.1, in which the same words are
booleans, 1e-3 is a text and 010 is eight; so everything that this package reads from YAML, it reads
here.
"""

from typing import Any


class YamlError(ValueError):
    """A text that is not YAML; the message is one line that says where."""


def loads(text: str) -> Any:
    """What a YAML text holds: dicts, lists and scalars. Raises YamlError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError as RuamelError

    try:
        return YAML(typ="safe", pure=True).load(text)  # pure: the parser in C reads YAML 1.1
    except RuamelError as error:
        raise YamlError(" ".join(str(error).split())) from None


def dumps(values: Any) -> str:
    """`values` as YAML, in the order they have, that readers of YAML 1.1 and 1.2 read alike.

    PyYAML quotes the texts that 1.1 takes for something else; those of 1.2 are added here.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """With representers of its own."""

    def represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = None if _is_text(value) else "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, represent_text)
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def _is_text(value: str) -> bool:
    try:
        return loads(value) == value
    except YamlError:
        return True  # it has marks of YAML in it: PyYAML quotes those
