"""Metrics that look through a trained network: LPIPS, the Frechet distance on VGG16, and FID.

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
    """A weight file that was asked for is missing or is another; the message names the cure."""


@dataclass(frozen=True)
class Features:
    """What the networks see in a batch of B images.

    VGG16's maps are for LPIPS, pooled vectors for the distances of sets.
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
    """ImageNet's VGG16 from torch's cache or the network, tried once a process; None: offline."""
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
    """VGG16's convolution weights (`features.N.weight/bias`) and where they came from.

    None where none can be had. Raises TrunkError if a folder was named (`folder`, else
    $SATJEPA_TRUNKS) and holds no trunk: a wrong path must not end in a download or a random trunk.
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
    if weights := _torchvision_trunk():
        return weights, "torchvision IMAGENET1K_V1"
    return None, "fixed random trunk (seed 0): no trunk file, no network"


def _random_trunk(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """He-normal weights and zero biases that are the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in sorted(shapes.items()):  # in a fixed order, as each draws from the generator
        if len(shape) > 1:
            deviation = (2.0 / shape[1:].numel()) ** 0.5
            weights[name] = torch.randn(shape, generator=generator) * deviation
        else:
            weights[name] = torch.zeros(shape)
    return weights


def build_lpips(weights: dict[str, Tensor] | None) -> nn.Module:
    """The package's LPIPS v0.1 (VGG16, its calibrated heads) on a trunk; None: the random one.

    Raises TrunkError when the weights are not exactly those of VGG16's 13 convolutions.
    """
    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # lpips 0.1.4 asks torchvision for `pretrained=False` the old way
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net="vgg", version="0.1", pnet_rand=True, verbose=False)
    names = {}  # features.N.weight -> the name in lpips, sliceK.N.weight
    shapes = {}
    for lpips_name, tensor in model.net.state_dict().items():
        name = "features." + lpips_name.split(".", 1)[1]
        names[name] = lpips_name
        shapes[name] = tensor.shape
    if weights is None:
        weights = _random_trunk(shapes)
    if {name: value.shape for name, value in weights.items()} != shapes:
        raise TrunkError(
            "the trunk does not hold VGG16's features.0 to features.28 and nothing else: "
            "wrong file?"
        )
    model.net.load_state_dict({names[name]: value for name, value in weights.items()})
    return model.requires_grad_(False)


@functools.cache
def _inception_file() -> Path | str:
    """The Inception weights from torch's cache or the network, tried once; the reason: offline."""
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
            f"Inception weights could not be downloaded ({reason}); "
            f"set eval.fid_weights to {FID_FILE}"
        )
    return path


def load_inception(
    path: str | Path | None = None,
) -> tuple[Callable[[Tensor], tuple[Tensor, ...]] | None, str]:
    """torch-fidelity's Inception (uint8 images -> 64 and 2048 features), and its source.

    None, and the reason instead of the source, where it cannot be had. Raises TrunkError if `path`
    (`eval.fid_weights`) is missing or is not the file FID is defined with. The hash is checked
    before the file is opened, as torch-fidelity would unpickle anything.
    """
    path = Path(path) if path else _inception_file()
    if isinstance(path, str):  # the reason why there is none
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

    layers = [str(size) for size in FID_SIZES]
    model = FeatureExtractorInceptionV3("inception-v3-compat", layers, str(path))
    return model, FID_FILE


class Perceptual:
    """The networks of one evaluation, built by `load_perceptual`.

    `features` of an image are made once, then `distance` (LPIPS) and `frechet_distance` of them.
    Attributes: lpips_name `lpips` or `lpips_rand`; distances, the names of the set distances there
    are weights for; settings, what a table has to say about them.
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
        has_fid = inception is not None
        self._lpips = build_lpips(trunk).to(self.device)
        self._inception = inception.to(self.device) if has_fid else None
        suffix = "" if trunk is not None else "_rand"
        self.lpips_name = f"lpips{suffix}"
        self.fd_name = f"fd_vgg{suffix}"
        fid_names = [f"fid{size}" for size in FID_SIZES] if has_fid else []
        self.distances = (self.fd_name, *fid_names)
        self.settings = {
            self.lpips_name: (
                f"package lpips, version 0.1, VGG16, input in [-1, 1]; trunk: {trunk_source}"
            ),
            self.fd_name: (
                "Frechet distance of 256 features, "
                "the mean over the map of relu3_3 of the same VGG16"
            ),
            "fid": f"Inception of torch-fidelity, {fid_source}" if has_fid else None,
            "fid_missing": None if has_fid else fid_source,
        }

    @torch.no_grad()
    def features(self, images: Tensor, valid: Tensor | None = None) -> Features:
        """Features of (B, 3, H, W) images in [0, 1], H and W at least 16.

        Invalid pixels (valid (B, 1, H, W) False) become mid-grey. Where forecast and truth have the
        same holes, what a hole held is without effect; its place counts, as a perfect one.
        """
        import lpips

        images = images.to(self.device, torch.float32).clamp(0.0, 1.0)
        if valid is not None:
            images = torch.where(valid.to(self.device), images, 0.5)
        with torch.autocast(self.device.type, enabled=False):
            maps = self._lpips.net(self._lpips.scaling_layer(2 * images - 1))
            pooled = {self.fd_name: maps[FD_LAYER].mean((2, 3))}  # (B, 256)
            if self._inception is not None:
                vectors = self._inception((images * 255).round().to(torch.uint8))
                for size, vector in zip(FID_SIZES, vectors, strict=True):
                    pooled[f"fid{size}"] = vector  # (B, size)
        unit_maps = tuple(lpips.normalize_tensor(layer_map) for layer_map in maps)
        return Features(unit_maps, {name: vector.double().cpu() for name, vector in pooled.items()})

    @torch.no_grad()
    def distance(self, a: Features, b: Features) -> Tensor:
        """LPIPS between the images of two batches: (B,) float64. Equal to the package's
        `LPIPS.forward`.
        """
        total = 0
        with torch.autocast(self.device.type, enabled=False):
            for head, x, y in zip(self._lpips.lins, a.maps, b.maps, strict=True):
                total = total + head((x - y).square()).mean((1, 2, 3))
        return total.double().cpu()


def load_perceptual(
    lpips_trunk: str | Path | None = None,
    fid_weights: str | Path | None = None,
    device: str = "cpu",
) -> Perceptual:
    """The networks as `eval.lpips_trunk` and `eval.fid_weights` of params.yaml ask.

    None: from the folder that the environment names, or by a download.
    """
    return Perceptual(*find_trunk(lpips_trunk), *load_inception(fid_weights), device)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two sets of vectors (N, D) and (M, D).

    |mean difference|^2 + Tr(A) + Tr(B) - 2 Tr((A B)^1/2), covariances divided by N - 1, float64
    throughout.

    With A = X'X and B = Y'Y the last trace is the sum of the singular values of X Y', so that
    nothing is regularised and covariances of less than full rank (N <= D) are exact. It stays
    biased upwards by about D / N: compare only distances of the same N, which a table therefore
    prints. NaN for fewer than two vectors.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    means = []
    roots = []
    traces = 0.0
    for x in (a.double(), b.double()):
        mean = x.mean(0)  # (D,)
        centred = (x - mean) / (len(x) - 1) ** 0.5
        means.append(mean)
        roots.append(torch.linalg.qr(centred, mode="r").R)  # same X'X, at most D rows
        traces += float(centred.square().sum())
    cross = float(torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc"))
    between = float((means[0] - means[1]).square().sum())
    return max(between + traces - 2 * cross, 0.0)  # rounding can take it below 0
