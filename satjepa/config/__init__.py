"""The configuration: `load_params()` reads and checks params.yaml; every mistake is a
`ConfigError`.
"""

from satjepa.config.errors import ConfigError
from satjepa.config.files import load_params
from satjepa.config.params import Params, digest, from_dict

__all__ = ["ConfigError", "Params", "digest", "from_dict", "load_params"]
