"""Photos -> unit vectors, from the folder that this file lies in. Needs torch, transformers, pillow and safetensors.

python load.py PHOTO ...  prints the cosines of the photos with the first one; from Python:

    from load import PhotoEncoder
    vectors = PhotoEncoder("FOLDER")([image, ...])      # PIL images in RGB -> tensor [n, d]
"""

import importlib
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from transformers import AutoImageProcessor


class PhotoEncoder(torch.nn.Module):
    """The vision tower with its pooler."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
        kind = config["model_type"].removesuffix("_vision")
        code = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
        self.tower = getattr(code, config["architectures"][0]).from_pretrained(folder, dtype=torch.float32).eval()
        self.images = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.pooler = load_file(Path(folder) / "pooler.safetensors")

    @torch.inference_mode()
    def forward(self, photos: Sequence[Image.Image]) -> torch.Tensor:
        """Return vectors [photos, d] of length 1; of a product with several photos take their mean."""
        made = self.images(list(photos), return_tensors="pt").to(self.tower.device)
        grids = made["image_grid_thw"]
        tokens = self.tower(made["pixel_values"], grid_thw=grids).pooler_output
        rows = [self.pooled(each) for each in tokens.split((grids.prod(1) // self.images.merge_size**2).tolist())]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)

    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return W_o (beta X) of one photo's tokens X [tokens, D]: beta = softmax(q W_k X^T / sqrt D), or the mean."""
        learnt = {name: tensor.to(tokens.device) for name, tensor in self.pooler.items()}
        if "query" not in learnt:
            return torch.mv(learnt["out.weight"], tokens.mean(0))
        scores = tokens @ (learnt["query"] @ learnt["key.weight"]) / math.sqrt(tokens.shape[1])
        return torch.mv(learnt["out.weight"], torch.softmax(scores, dim=0) @ tokens)


def open_photo(file: str | Path) -> Image.Image:
    """Open a photo the right way up, in RGB."""
    return ImageOps.exif_transpose(Image.open(file)).convert("RGB")


if __name__ == "__main__":
    vectors = PhotoEncoder(Path(__file__).parent)([open_photo(file) for file in sys.argv[1:]])
    for file, cosine in zip(sys.argv[1:], vectors @ vectors[0], strict=True):
        sys.stdout.write(f"{cosine:.4f}  {file}\n")
