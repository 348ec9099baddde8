"""The command line as a function, and a model without weights to speak of for it."""

import torch
from typer.testing import CliRunner, Result

from satjepa import cli
from satjepa.config import Params
from satjepa.models.joint import JointModel


class Model(torch.nn.Module):
    """Stands in for SatJepa: persistence, a shade darker for each step of the sampler."""

    def __init__(self, params: Params, device: str | None = None) -> None:
        super().__init__()
        self.params = params
        self.backbone = torch.nn.Linear(2, 2).requires_grad_(False)
        torch.nn.init.ones_(self.backbone.weight), torch.nn.init.zeros_(self.backbone.bias)
        self.scale = torch.nn.Parameter(torch.zeros(1))

    device = JointModel.device
    guidance = JointModel.guidance
    steps = JointModel.steps
    strength = JointModel.strength
    sampler = JointModel.sampler

    def state(self) -> dict:
        return {"scale": self.scale.data}

    def load_state(self, state: dict) -> None:
        self.scale.data = state["scale"]

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        assert batch["text_t"]["hidden"].shape[1:] == (3, self.params.captions.max_length, 4)
        return (batch["rgb_t"] * self.scale.detach() - self.params.sample.steps / 1000).expand(
            samples, -1, -1, -1, -1
        )


class Encoders:
    def embed_batch(self, texts: list[str], length: int) -> tuple:
        mask = torch.ones(len(texts), length, dtype=torch.bool)
        return torch.zeros(len(texts), length, 4), mask, torch.zeros(len(texts), 6)

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])
