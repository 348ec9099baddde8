"""Metrics of networks: the real LPIPS where the trunk is at hand.

An honest name, or nothing, where it is not.
"""

import hashlib
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from satjepa.metrics import perceptual
from satjepa.metrics.perceptual import (
    Perceptual,
    TrunkError,
    find_trunk,
    frechet_distance,
    load_inception,
)

OFFLINE = (None, "no weights in this test")


@pytest.fixture(scope="module")
def real(shared) -> Perceptual:
    """The networks with ImageNet's trunk."""
    return Perceptual(*find_trunk(shared / "weights"), *OFFLINE)


@pytest.fixture(scope="module")
def random() -> Perceptual:
    """The networks of a machine without trunk and network."""
    return Perceptual(None, "random", *OFFLINE)


@pytest.fixture
def no_network(monkeypatch, tmp_path) -> None:
    """Nothing set, nothing cached, nothing to be reached."""

    def refuse(*_args, **_kwargs) -> None:
        raise URLError("Name or service not known")

    monkeypatch.delenv("SATJEPA_TRUNKS", raising=False)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    for tried_once in (perceptual._torchvision_trunk, perceptual._inception_file):
        tried_once.cache_clear()
        monkeypatch.setattr(perceptual, tried_once.__name__, tried_once)


def images(count: int, seed: int, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def photo(shared) -> torch.Tensor:
    """A real Sentinel-2 patch, (1, 3, 128, 128)."""
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(shared / "data/S2Patches/3135679.jpeg") as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None] / 255


def test_lpips_of_a_real_patch(shared, real) -> None:
    patch = photo(shared)
    noisy = patch + 0.1 * torch.randn(patch.shape, generator=torch.Generator().manual_seed(0))
    seen = real.features(patch)
    noised = real.features(noisy)
    assert real.lpips_name == "lpips" and real.fd_name == "fd_vgg"
    assert float(real.distance(seen, seen)) == 0.0
    assert float(real.distance(seen, noised)) == pytest.approx(
        0.458, abs=0.005
    )  # 0.429 on the patch of weights/README


def test_lpips_equals_the_package(real) -> None:
    a = images(2, 0)
    b = images(2, 1)
    reference = real._lpips(a, b, normalize=True).flatten().double()
    torch.testing.assert_close(
        real.distance(real.features(a), real.features(b)), reference, rtol=1e-6, atol=0
    )


def test_batch_and_autocast_change_nothing(real) -> None:
    a = images(3, 0)
    b = images(3, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = real.distance(real.features(a), real.features(b))
    single = [
        real.distance(real.features(a[i : i + 1]), real.features(b[i : i + 1])) for i in range(3)
    ]
    torch.testing.assert_close(whole, torch.cat(single), rtol=1e-5, atol=0)


def test_nodata_enters_no_feature(real) -> None:
    a = images(1, 0)
    b = images(1, 1)
    valid = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    valid[..., 4:20, 4:20] = False
    spoilt = torch.where(valid, a, torch.nan)
    first = real.features(a, valid)
    second = real.features(spoilt, valid)
    assert first.pooled["fd_vgg"].shape == (1, 256)
    assert torch.equal(first.pooled["fd_vgg"], second.pooled["fd_vgg"])
    truth = real.features(b, valid)
    assert torch.equal(real.distance(first, truth), real.distance(second, truth))


def test_a_random_trunk_never_has_the_real_name(random, no_network) -> None:
    assert (random.lpips_name, random.fd_name) == ("lpips_rand", "fd_vgg_rand")
    weights, source = find_trunk()
    assert weights is None and "random" in source
    inception, reason = load_inception()
    assert inception is None and "could not be downloaded" in reason
    assert random.distances == ("fd_vgg_rand",), "no FID without its weights"
    assert random.settings["fid"] is None and random.settings["fid_missing"]


def test_the_random_trunk_is_the_same_everywhere(random) -> None:
    small = perceptual._random_trunk(
        {"b.weight": torch.Size((2, 4, 1, 1)), "a.bias": torch.Size((3,))}
    )
    assert small["a.bias"].eq(0).all()
    expected = torch.tensor(
        [[1.0896, -0.2075, -1.5408, 0.4021], [-0.7671, -0.9891, 0.2852, 0.5926]]
    )
    torch.testing.assert_close(small["b.weight"].view(2, 4), expected, rtol=0, atol=1e-3)
    deepest = random._lpips.net.state_dict()["slice5.28.weight"]
    assert float(deepest.std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_the_order_in_which_a_trunk_is_looked_for(tmp_path, monkeypatch, no_network) -> None:
    for name in ("setting", "environment"):
        (tmp_path / name).mkdir()
        save_file({name: torch.zeros(1)}, tmp_path / name / perceptual.TRUNK_FILE)
    monkeypatch.setenv("SATJEPA_TRUNKS", str(tmp_path / "environment"))
    assert list(find_trunk(tmp_path / "setting")[0]) == ["setting"]
    assert list(find_trunk()[0]) == ["environment"]
    monkeypatch.delenv("SATJEPA_TRUNKS")
    downloaded = {"features.0.weight": torch.zeros(1), "classifier.0.weight": torch.zeros(1)}
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *a, **k: downloaded
    )
    perceptual._torchvision_trunk.cache_clear()
    weights, source = find_trunk()
    perceptual._torchvision_trunk.cache_clear()
    assert list(weights) == ["features.0.weight"] and "torchvision" in source


def test_a_wrong_trunk_is_an_error_not_another_trunk(tmp_path) -> None:
    with pytest.raises(TrunkError, match=rf"{perceptual.TRUNK_FILE} is not there"):
        find_trunk(tmp_path)
    state = torch.random.get_rng_state()
    with pytest.raises(TrunkError, match="wrong file"):
        perceptual.build_lpips({"features.0.weight": torch.zeros(64, 3, 3, 3)})
    assert torch.equal(torch.random.get_rng_state(), state), (
        "the caller's random numbers are left alone"
    )


def test_wrong_inception_weights_are_refused(tmp_path) -> None:
    with pytest.raises(TrunkError, match="is not there"):
        load_inception(tmp_path / "absent.pth")
    (tmp_path / "other.pth").write_bytes(b"not the weights")
    with pytest.raises(TrunkError, match="it is no FID"):
        load_inception(tmp_path / "other.pth")


def test_fid_equals_torchmetrics(tmp_path, monkeypatch) -> None:
    """With Inception weights drawn at random, since FID's own are not at hand.

    The path they take is the same.
    """
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    metric_class = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance
    with monkeypatch.context() as patch, torch.random.fork_rng():
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *a, **k: None)
        torch.manual_seed(0)
        weights = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["64"]).state_dict()
    path = tmp_path / perceptual.FID_FILE
    torch.save(weights, path)
    monkeypatch.setattr(perceptual, "FID_SHA256", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    networks = Perceptual(None, "random", *load_inception(path))
    sets = images(2, 0), 0.6 * images(2, 1)  # the second is darker
    pooled = [networks.features(x).pooled for x in sets]
    assert pooled[0]["fid64"].shape == (2, 64) and pooled[0]["fid2048"].shape == (2, 2048)

    class Shallow(torch.nn.Module):
        num_features = 64
        forward = staticmethod(lambda x: networks._inception(x)[0])

    reference = metric_class(feature=Shallow())
    for x, is_real in zip(sets, (True, False), strict=True):
        reference.update((x * 255).round().to(torch.uint8), real=is_real)
    distance = frechet_distance(pooled[0]["fid64"], pooled[1]["fid64"])
    assert distance == pytest.approx(float(reference.compute()), rel=1e-4)
    assert (
        networks.distances == ("fd_vgg_rand", "fid64", "fid2048")
        and networks.settings["fid_missing"] is None
    )


def test_frechet_distance_against_the_matrix_square_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    generator = torch.Generator().manual_seed(0)
    a = (
        torch.randn(60, 8, generator=generator, dtype=torch.float64)
        @ torch.randn(8, 8, generator=generator).double()
    )
    b = 0.3 + torch.randn(50, 8, generator=generator, dtype=torch.float64)
    cov_a, cov_b = (np.cov(x.numpy(), rowvar=False) for x in (a, b))
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_of_known_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(20, 64, generator=generator)  # covariance of rank 19: nothing is regularised
    assert frechet_distance(few, few) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(few, few + 0.5) == pytest.approx(64 * 0.25, rel=1e-5)
    assert frechet_distance(few, 2 * few) == pytest.approx(
        float(few.double().mean(0).square().sum() + few.double().var(0).sum()), rel=1e-9
    )
    assert np.isnan(frechet_distance(few[:1], few))
