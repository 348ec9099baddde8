"""Metrics that look through a trained network: LPIPS, the Frechet distance on VGG16 features, and
FID.

No number is given under a name it has not earned: LPIPS and `fd_vgg` need ImageNet's VGG16 trunk
and become `lpips_rand` and `fd_vgg_rand` on a fixed random trunk where no trunk can be had; FID
needs the Inception weights every published FID was made with (checked by their hash) and is None,
with the reason, where they cannot be had.

VGG16 comes from, in this order: the folder in `eval.lpips_trunk`, the folder in $SATJEPA_TRUNKS
(both hold `vgg16_features.safetensors`), torchvision's download (528 MB, kept in torch's cache),
the random trunk.
"""

import functools
import hashlib
import os
import socket
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

TRUNK_FILE = "vgg16_features.safetensors"
FD_LAYER = 2  # of LPIPS' five: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
FID_SIZES = (64, 2048)
FID_FILE = "weights-inception-2015-12-05-6726825d.pth"
FID_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FID_FILE}"
FID_SHA256 = "6726825d"  # how the hash of the only Inception weights FID is defined with begins
CONNECT_SECONDS = 10.0


class TrunkError(RuntimeError):
    """A weight file that was asked for is missing or is not what it should be; the message names it
    and the cure.
    """


@dataclass(frozen=True)
class Features:
    """What the networks see in a batch of B images: VGG16 maps for LPIPS, pooled vectors for the
    distances.
    """

    maps: tuple[Tensor, ...]  # five (B, C_k, H_k, W_k), unit length over channels
    pooled: dict[str, Tensor]  # metric name -> (B, D) float64: fd_vgg 256, fid64 64, fid2048 2048


@contextmanager
def _patience():
    """A connection that never answers must not hang an offline run."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def _torchvision_trunk() -> dict[str, Tensor] | None:
    """ImageNet's VGG16 from torch's cache or the network, tried once per process; None when
    offline.
    """
    from torchvision.models import VGG16_Weights

    try:
        with _patience():
            weights = VGG16_Weights.IMAGENET1K_V1.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
    except OSError:  # URLError, HTTPError and time-outs are all OSErrors
        return None
    return {name: value for name, value in weights.items() if name.startswith("features.")}


def find_trunk(folder: str | Path | None = None) -> tuple[dict[str, Tensor] | None, str]:
    """VGG16's convolution weights (`features.N.weight/bias`) and where they came from; None where
    none can be had.

    Raises TrunkError if a folder was named (`folder`, else $SATJEPA_TRUNKS) and holds no trunk: a
    wrong path must not end in a download or a random trunk.
    """
    from safetensors.torch import load_file

    folder = folder or os.environ.get("SATJEPA_TRUNKS")
    if folder:
        path = Path(folder) / TRUNK_FILE
        if not path.is_file():
            raise TrunkError(
                f"{path} is not there. Correct eval.lpips_trunk or $SATJEPA_TRUNKS, or unset both."
            )
        return load_file(path), f"{TRUNK_FILE}, sha256 {_sha256(path)[:12]}"
    weights = _torchvision_trunk()
    return (
        weights,
        "torchvision IMAGENET1K_V1"
        if weights
        else "fixed random trunk (seed 0): no trunk file, no network",
    )


def _random_trunk(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """He-normal weights and zero biases that are the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (2.0 / shape[1:].numel()) ** 0.5
        if len(shape) > 1
        else torch.zeros(shape)
        for name, shape in sorted(shapes.items())
    }


def build_lpips(weights: dict[str, Tensor] | None) -> nn.Module:
    """The package's LPIPS v0.1 (VGG16, its calibrated heads) on the given trunk, or on the random
    one for None.

    Raises TrunkError when the weights are not exactly those of VGG16's 13 convolutions.
    """
    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter(
            "ignore"
        )  # lpips 0.1.4 asks torchvision for `pretrained=False` the old way
        model = lpips.LPIPS(net="vgg", version="0.1", pnet_rand=True, verbose=False)
    own = {
        f"features.{name.split('.', 1)[1]}": name for name in model.net.state_dict()
    }  # sliceK.N.weight
    shapes = {name: model.net.state_dict()[own[name]].shape for name in own}
    weights = _random_trunk(shapes) if weights is None else weights
    if {name: value.shape for name, value in weights.items()} != shapes:
        raise TrunkError(
            "the trunk does not hold VGG16's features.0 to features.28 and nothing else: wrong "
            "file?"
        )
    model.net.load_state_dict({own[name]: value for name, value in weights.items()})
    return model.requires_grad_(False)


@functools.cache
def _inception_file() -> Path | str:
    """The Inception weights from torch's cache or the network, tried once per process; the reason
    when offline.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / FID_FILE
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _patience():
            torch.hub.download_url_to_file(
                FID_URL, str(path), hash_prefix=FID_SHA256, progress=False
            )
    except OSError as error:
        reason = getattr(error, "reason", error)
        return (
            f"Inception weights could not be downloaded ({reason}); set eval.fid_weights to "
            f"{FID_FILE}"
        )
    return path


def load_inception(
    path: str | Path | None = None,
) -> tuple[Callable[[Tensor], tuple[Tensor, ...]] | None, str]:
    """torch-fidelity's Inception (uint8 images -> 64 and 2048 features), and its source or the
    reason it is missing.

    Raises TrunkError if `path` (`eval.fid_weights`) is missing or is not the file FID is defined
    with. The hash is checked before the file is opened, as torch-fidelity would unpickle anything.
    """
    path = Path(path) if path else _inception_file()
    if isinstance(path, str):
        return None, path
    if not path.is_file():
        raise TrunkError(
            f"eval.fid_weights: {path} is not there. Correct it, or set it to null for a download."
        )
    if not _sha256(path).startswith(FID_SHA256):
        raise TrunkError(
            f"{path} is not {FID_FILE} (sha256 {FID_SHA256}...): with other weights it is no FID."
        )
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    model = FeatureExtractorInceptionV3(
        "inception-v3-compat", [str(n) for n in FID_SIZES], str(path)
    )
    return model, FID_FILE


class Perceptual:
    """The networks of one evaluation. `features` of an image once, then `distance` (LPIPS) and
    `frechet_distance`.

    Attributes: lpips_name `lpips` or `lpips_rand`; distances, the names of the set distances there
    are weights for; settings, what a table has to say about them. Build it with `load_perceptual`.
    """

    def __init__(
        self,
        trunk: dict[str, Tensor] | None,
        trunk_source: str,
        inception,
        fid_source: str,
        device="cpu",
    ):
        self.device = torch.device(device)
        self._lpips = build_lpips(trunk).to(self.device)
        self._inception = inception.to(self.device) if inception is not None else None
        suffix = "" if trunk is not None else "_rand"
        self.lpips_name = f"lpips{suffix}"
        self.fd_name = f"fd_vgg{suffix}"
        self.distances = (self.fd_name, *(f"fid{n}" for n in FID_SIZES if inception is not None))
        self.settings = {
            self.lpips_name: f"package lpips, version 0.1, VGG16, input in [-1, 1]; trunk: {trunk_source}",
            self.fd_name: "Frechet distance of 256 features, the mean over the map of relu3_3 of the same VGG16",
            "fid": f"Inception of torch-fidelity, {fid_source}" if inception is not None else None,
            "fid_missing": None if inception is not None else fid_source,
        }

    @torch.no_grad()
    def features(self, images: Tensor, valid: Tensor | None = None) -> Features:
        """Features of (B, 3, H, W) images in [0, 1], H and W at least 16.

        Invalid pixels (valid (B, 1, H, W) False) become mid-grey; do so in forecast and truth
        alike, and a hole is the same in both and its former content is without effect (its place
        still counts, as a perfect one).
        """
        import lpips

        images = images.to(self.device, torch.float32).clamp(0.0, 1.0)
        if valid is not None:
            images = torch.where(valid.to(self.device), images, 0.5)
        with torch.autocast(self.device.type, enabled=False):
            maps = self._lpips.net(self._lpips.scaling_layer(2 * images - 1))
            pooled = {self.fd_name: maps[FD_LAYER].mean((2, 3))}
            if self._inception is not None:
                vectors = self._inception((images * 255).round().to(torch.uint8))
                pooled |= {f"fid{n}": v for n, v in zip(FID_SIZES, vectors, strict=True)}
        return Features(
            tuple(map(lpips.normalize_tensor, maps)),
            {k: v.double().cpu() for k, v in pooled.items()},
        )

    @torch.no_grad()
    def distance(self, a: Features, b: Features) -> Tensor:
        """LPIPS between the images of two batches: (B,) float64. Equal to the package's
        `LPIPS.forward`.
        """
        layers = zip(self._lpips.lins, a.maps, b.maps, strict=True)
        with torch.autocast(self.device.type, enabled=False):
            return (
                sum(head((x - y).square()).mean((1, 2, 3)) for head, x, y in layers).double().cpu()
            )


def load_perceptual(
    lpips_trunk: str | Path | None = None,
    fid_weights: str | Path | None = None,
    device: str = "cpu",
) -> Perceptual:
    """The networks as `eval.lpips_trunk` and `eval.fid_weights` of params.yaml ask (null:
    environment, download).
    """
    return Perceptual(*find_trunk(lpips_trunk), *load_inception(fid_weights), device)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two sets of vectors (N, D) and (M, D): |mean
    difference|^2 + Tr(A) + Tr(B) - 2 Tr((A B)^1/2), covariances divided by N - 1, float64
    throughout.

    With A = X'X and B = Y'Y the last trace is the sum of the singular values of X Y', so that
    nothing is regularised and covariances of less than full rank (N <= D) are exact. It stays
    biased upwards by about D / N: compare only distances of the same N, which a table therefore
    prints. NaN for fewer than two vectors.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    mean = []
    roots = []
    traces = 0.0
    for x in (a.double(), b.double()):
        mean.append(x.mean(0))
        centred = (x - mean[-1]) / (len(x) - 1) ** 0.5
        roots.append(torch.linalg.qr(centred, mode="r").R)  # same X'X, at most D rows
        traces += float(centred.square().sum())
    cross = float(torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc"))
    return max(float((mean[0] - mean[1]).square().sum()) + traces - 2 * cross, 0.0)
