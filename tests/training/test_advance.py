"""The captured step without a GPU: what is captured, replayed and captured anew, on a stand-in."""

from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch

from satjepa.models.drops import Drops
from satjepa.training.advance import WARM_UPS, GraphedAdvance, advance


class Stream:
    def wait_stream(self, other):
        pass


class Recorder:
    """Stands for `torch.cuda.CUDAGraph`: a replay runs the captured step again, on its inputs."""

    made: ClassVar[list] = []

    def __init__(self):
        Recorder.made.append(self)

    def replay(self):
        self.again()

    def again(self):
        pass


@pytest.fixture
def cuda(monkeypatch):
    """Streams and graphs that do nothing but note what they are asked for."""

    @contextmanager
    def quiet(*args):
        yield

    Recorder.made = []
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", quiet)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorder)
    monkeypatch.setattr(torch.cuda, "graph", quiet)


class Line(torch.nn.Linear):
    """One weight; its loss is the mean of weight * x over what is kept."""

    def __init__(self):
        super().__init__(1, 1, bias=False)
        self.calls = 0

    def forward(self, batch, drops):
        self.calls += 1
        loss = (self.weight * batch["x"] * drops.text[:, None]).mean()
        return loss, {"loss": loss.detach()}


def inputs(value, size=2):
    kept = torch.ones(size)
    return {"x": torch.full((size, 1), value), "meta": ["a"] * size}, Drops(
        kept, kept, kept, kept[:, None].expand(-1, 4)
    )


def test_a_step_is_captured_once_and_replayed_on_new_inputs(cuda):
    model = Line()
    graphed = GraphedAdvance(model.forward, model)
    graphed(inputs(2.0))
    assert model.calls == WARM_UPS + 1 and len(Recorder.made) == 1
    captured = graphed._captured
    x = captured.inputs[0]
    assert torch.equal(x, torch.full((2, 1), 2.0)) and model.weight.grad is captured.gradients[0]
    Recorder.made[0].again = lambda: captured.gradients[0].fill_(x.mean())
    model.zero_grad(set_to_none=True)
    graphed(inputs(5.0))
    assert model.calls == WARM_UPS + 1 and model.weight.grad.item() == 5.0
    graphed(inputs(7.0, size=3))  # other shapes: captured anew
    assert len(Recorder.made) == 2 and model.calls == 2 * (WARM_UPS + 1)
    assert graphed._captured.inputs[0].shape == (3, 1)


def test_what_cannot_be_captured_is_a_warning_and_a_plain_step(cuda, monkeypatch):
    def fails(*args):
        raise RuntimeError("operation not permitted when stream is capturing")

    model = Line()
    monkeypatch.setattr(torch.cuda, "graph", fails)
    graphed = GraphedAdvance(model.forward, model)
    with pytest.warns(RuntimeWarning, match="not be captured .* not permitted"):
        graphed(inputs(2.0))
    plain = Line()
    advance(plain.forward, plain, inputs(2.0))
    assert torch.equal(model.weight.grad, plain.weight.grad) and plain.weight.grad.item() == 2
    graphed(inputs(3.0))
    assert model.weight.grad.item() == 3 and Recorder.made == Recorder.made[:1]
