"""What is compiled has no graph break, is not compiled twice, and falls back with one warning."""

import copy

import pytest
import torch
from model_fixtures import _step

from satjepa.models.backbone import Backbone
from satjepa.models.compiled import Compiled, is_on


class Counter:
    """A backend that counts graphs and runs them as they are."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def counted(monkeypatch):
    """Every `Compiled` of a backbone has the counting backend; `fullgraph` forbids graph breaks."""
    counter = Counter()
    made = []

    def compiled(function, title, blocks=(), **options):
        assert options.pop("mode", "default") == ("default" if blocks else "reduce-overhead")
        made.append(Compiled(function, title, blocks, backend=counter))
        return made[-1]

    monkeypatch.setattr("satjepa.models.backbone.Compiled", compiled)
    torch._dynamo.reset()
    counter.made = made
    yield counter
    torch._dynamo.reset()


@pytest.mark.parametrize("variant", ["satjepa", "published"])
def test_a_compiled_forecast_is_one_graph_for_all_batches(
    variant, trained, build_published, batch, counted
):
    """Within 1e-6 of the plain one, and not compiled again for fewer patches."""
    model = build_published().eval() if variant == "published" else trained().eval()
    model.params.sample.guidance = 1.0 if variant == "published" else 1.5
    model.params.sample.compile = "off"
    plain = model.forecast(batch, 2)
    assert counted.graphs == 0
    model.params.sample.compile = "on"
    torch.testing.assert_close(model.forecast(batch, 2), plain, atol=1e-6, rtol=0)
    assert counted.graphs == 1
    few = {name: value for name, value in batch.items() if name != "meta"}
    few = {name: _first(value) for name, value in few.items()} | {"meta": batch["meta"][:1]}
    torch.testing.assert_close(model.forecast(few, 2), plain[:, :1], atol=1e-6, rtol=0)
    model.forecast(batch, 1)
    assert counted.graphs == 1 and not counted.made[0].failed
    assert len(counted.made) == 1 and len(counted.made[0].seconds) == 1


def _first(value):
    if isinstance(value, dict):
        return {name: _first(item) for name, item in value.items()}
    return value[:1]


@pytest.mark.parametrize("variant", ["satjepa", "published"])
def test_compiled_blocks_train_alike_without_a_graph_break(
    variant, trained, build_published, batch, counted
):
    """Two kinds of blocks (the last drops its words), so two graphs, whatever the number of
    blocks; gradients within 1e-5 of the plain ones.
    """
    model = build_published() if variant == "published" else trained()
    model.eval()  # dropout of the published forecaster is drawn anew
    plain = gradients(copy.deepcopy(model), batch)
    with model.backbone.training_blocks("on"):
        compiled = gradients(model, batch)
    assert counted.graphs == 2 and not counted.made[0].failed
    assert plain.keys() == compiled.keys()
    for name, gradient in compiled.items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-5, rtol=1e-4)
    assert all(b._compiled_call_impl is None for b in model.backbone.transformer.transformer_blocks)
    gradients(model, batch)
    assert counted.graphs == 2


def gradients(model, batch):
    torch.manual_seed(0)
    _step(model, batch)[0].backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_many_blocks_share_three_graphs(counted):
    """PyTorch's limit of eight variants of a function, past which it is eager without a word, is
    not met by many blocks: the first (what it reads has no gradient), the last, and all others.
    """
    from satjepa.demo.tiny_sd3 import build_transformer, build_vae

    torch.manual_seed(0)
    transformer = build_transformer(layers=12, heads=2, head_dim=16, side=4)
    backbone = Backbone(transformer, build_vae((8, 8, 8, 8), 32))
    backbone.add_lora(2, 2, ["to_q", "to_k", "to_v", "to_out.0"])
    inputs = (torch.randn(2, 16, 4, 4), torch.rand(2), torch.randn(2, 5, 128), torch.randn(2, 128))
    with backbone.training_blocks("on"):
        backbone(*inputs).mean().backward()
    assert counted.graphs == 3


def test_what_cannot_be_compiled_warns_once_and_goes_on(capsys):
    layer = torch.nn.Linear(2, 2)

    def backend(graph, inputs):
        raise RuntimeError("no compiler")

    compiled = Compiled(layer.forward, "the layer", backend=backend)
    x = torch.ones(3, 2)
    with pytest.warns(RuntimeWarning, match="the layer could not be compiled .*no compiler"):
        out = compiled(x)
    assert torch.equal(out, layer(x)) and "compiling the layer for 3x2" in capsys.readouterr().out
    assert torch.equal(compiled(x[:1]), layer(x[:1])) and not capsys.readouterr().out  # no more


def test_the_first_call_says_that_it_compiles_and_how_long_it_took(capsys):
    layer = torch.nn.Linear(2, 2)
    compiled = Compiled(layer.forward, "the layer", backend=Counter())
    compiled(torch.ones(3, 2))
    out = capsys.readouterr().out
    assert "compiling the layer for 3x2" in out and "compiled in " in out
    compiled(torch.zeros(3, 2))
    assert not capsys.readouterr().out
    twin = copy.deepcopy(compiled)
    assert twin.function.__self__ is not layer and not twin.seconds


def test_too_many_shapes_are_told_and_not_silent(monkeypatch):
    layer = torch.nn.Linear(2, 2)
    torch._dynamo.reset()
    compiled = Compiled(layer.forward, "the layer", backend=Counter())
    monkeypatch.setattr("satjepa.models.compiled.RECOMPILES", 2)
    with pytest.warns(RuntimeWarning, match="could not be compiled"):
        for rows in range(2, 6):
            compiled(torch.ones(rows, 2))
    assert compiled.failed


def test_when_it_is_on():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [is_on(choice, cpu) for choice in ("auto", "on", "off")] == [False, True, False]
    assert [is_on(choice, cuda) for choice in ("auto", "on", "off")] == [True, True, False]
