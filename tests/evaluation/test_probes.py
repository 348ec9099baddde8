"""What a model listens to, asked of one that answers with what it was told."""

from types import SimpleNamespace

import pytest
import torch

from satjepa.contracts import CAPTION_KINDS
from satjepa.evaluation import probes

B, SIDE = 4, 16


def text(*values: float) -> dict[str, torch.Tensor]:
    """Captions (B,3,L,T) whose states are all `values`, one a sample."""
    states = torch.tensor(values).view(-1, 1, 1, 1).expand(B, 3, 2, 5)
    return {
        "hidden": states,
        "mask": torch.ones(B, 3, 2, dtype=torch.bool),
        "pooled": states[..., 0],
    }


class Repeater:
    """Draws an image as bright as its semantic caption of t+1 says: of the given one, else half of
    that of t.
    """

    def __init__(self, variant: str = "satjepa") -> None:
        self.params = SimpleNamespace(model=SimpleNamespace(variant=variant, use_captions=True))
        self.adapter = SimpleNamespace(silence=lambda count: text(*[0.0] * count))
        self.heard: list[torch.Tensor] = []

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        own = batch["text_t"]["hidden"] / 2
        if "text_given" in batch:
            own = torch.where(
                batch["is_given"][..., None, None], batch["text_given"]["hidden"], own
            )
        self.heard.append(own[:, :, 0, 0])
        bright = own[:, 2, 0, 0].view(1, B, 1, 1, 1)
        return bright.expand(samples, B, 3, SIDE, SIDE)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Repeater:
    valid = torch.ones(B, 1, SIDE, SIDE, dtype=torch.bool)
    truth = torch.tensor([0.2, 0.4, 0.6, 0.8]).view(B, 1, 1, 1).expand(B, 3, SIDE, SIDE)
    batch = {
        "rgb_t": torch.zeros(B, 3, SIDE, SIDE), "rgb_tp1": truth, "valid_t": valid,
        "valid_tp1": valid, "text_t": text(0.1, 0.2, 0.3, 0.4),
        "text_tp1": text(0.2, 0.4, 0.6, 0.8),
        "history": torch.zeros(B, 1, 3, SIDE, SIDE), "history_valid": torch.ones(B, 1).bool(),
    }  # fmt: skip
    monkeypatch.setattr(probes, "sample_batch", lambda params, count: batch)
    return Repeater()


PARAMS = SimpleNamespace(seed=0, eval=SimpleNamespace(change_threshold=0.1))


def test_each_case_tells_the_model_what_it_says(asked: Repeater) -> None:
    rows = probes.listen(asked, PARAMS, 2 * B, 1)  # of which there are half
    heard = dict(zip(rows.index, asked.heard, strict=True))
    own = torch.tensor([0.05, 0.1, 0.15, 0.2])
    true = 4 * own
    semantic = {case: told[:, 2] for case, told in heard.items()}
    torch.testing.assert_close(semantic["as it is"], own)
    torch.testing.assert_close(semantic["true caption of t+1"], true)
    torch.testing.assert_close(semantic["caption of t, copied"], 2 * own)
    torch.testing.assert_close(semantic["caption of another place's t+1"], true.roll(1))
    torch.testing.assert_close(semantic["captions of another place"], own.roll(1))
    assert not heard["no captions"].any()
    for number, kind in enumerate(CAPTION_KINDS):
        told = heard[f"{kind} caption alone"]
        torch.testing.assert_close(told[:, number], own)
        assert told.count_nonzero() == B


def test_scores_are_of_all_and_of_the_changed_pixels(asked: Repeater) -> None:
    rows = probes.listen(asked, PARAMS, B, 1)
    assert rows.loc["true caption of t+1", "psnr"] > 60
    # off by 3/4 of the truth: every pixel has changed, so both count the same errors
    off = 0.75 * torch.tensor([0.2, 0.4, 0.6, 0.8])
    first = rows.loc["as it is"]
    assert first["psnr"] == pytest.approx((-20 * off.log10()).mean().item(), abs=1e-4)
    assert first["changed"] == pytest.approx(-10 * off.square().mean().log10().item(), abs=1e-4)
    assert first["crps"] == pytest.approx(off.mean().item(), abs=1e-5)
    gain = rows["psnr"] - first["psnr"]
    torch.testing.assert_close(torch.tensor(rows["difference"].values), torch.tensor(gain.values))


def test_a_model_without_such_streams_is_not_asked_for_them(asked: Repeater) -> None:
    published = Repeater("published")
    rows = probes.listen(published, PARAMS, B, 1)
    assert not [case for case in rows.index if case.endswith("alone") or case == "no captions"]
