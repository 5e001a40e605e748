"""The pooler: a photo's tokens become one vector. Lines that begin with > are the paper's.

    > beta = softmax( q W_k X^T / sqrt(D) )             X [tokens, D]: what the vision tower makes of a photo
    > v    = normalise( W_o (beta X) )                  v [D_e]

Learnt are one query q [D], the keys W_k [D, D] and the map W_o [D_e, D]; no values, no heads. With mean pooling beta is
1 / tokens, and W_o alone is learnt.

What the paper leaves open, and what we chose:
- Training starts at mean pooling of the pretrained tower: W_k is the identity, and so is W_o. Where D_e is not D, W_o
  is orthonormal rows (D_e < D) or columns drawn from a seed, which keep inner products as well as they can be kept. q
  is drawn small: at 0 beta would be exactly even, but no gradient would reach W_k.
- X is the output of the tower's merger, the tokens that the language model reads. The pooler's numbers stay fp32.
- Photos are pooled one by one, each over its own tokens: no padding that would have to be masked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..errors import ModelError
from ..store.files import writing

QUERY_STD = 0.02
SEED = 0
WIDEST = 16_384
"""No vision tower has wider tokens: what a file says beyond it is not believed."""
QUERY, KEY, OUT = "query", "key.weight", "out.weight"
HINT = "train it again, or copy the checkpoint again"


@dataclass
class Pooled:
    """`vectors` [n, D_e] of length 1, and `beta` of each photo [tokens], which sums to 1."""

    vectors: Tensor
    beta: list[Tensor]


class Pooler(nn.Module):
    """Tokens of photos -> unit vectors, by one query's attention or by the mean."""

    query: nn.Parameter

    def __init__(
        self, width: int, dimension: int, pooling: Literal["attention", "mean"], *, start: bool = True
    ) -> None:
        """Make a pooler of tokens of `width` D and vectors of `dimension` D_e, which starts as mean pooling.

        Without `start` its numbers are undefined until they are loaded.
        """
        super().__init__()
        self.width, self.dimension, self.pooling = width, dimension, pooling
        self.out = _linear(width, dimension)
        if pooling == "attention":
            self.query = nn.Parameter(torch.empty(width))
            self.key = _linear(width, width)
        if start:
            self._start()

    @torch.no_grad()
    def _start(self) -> None:
        generator = torch.Generator().manual_seed(SEED)
        if self.pooling == "attention":
            nn.init.normal_(self.query, std=QUERY_STD, generator=generator)
            nn.init.eye_(self.key.weight)
        if self.width == self.dimension:
            nn.init.eye_(self.out.weight)
        else:
            nn.init.orthogonal_(self.out.weight, generator=generator)

    def forward(self, photos: Sequence[Tensor]) -> Pooled:
        """Pool the tokens [tokens, D] of each of one photo or more; a photo has at least one token."""
        tokens = [each.to(self.out.weight) for each in photos]
        beta = self._attention(tokens)
        pooled = torch.stack([weights @ each for weights, each in zip(beta, tokens, strict=True)])
        return Pooled(normalize(self.out(pooled), dim=1), beta)

    def _attention(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        if self.pooling == "mean":
            return [each.new_full((len(each),), 1 / len(each)) for each in tokens]
        query = self.query @ self.key.weight / math.sqrt(self.width)
        return [torch.softmax(each @ query, dim=0) for each in tokens]


def _linear(width: int, dimension: int) -> nn.Linear:
    """Return a map whose numbers are undefined: torch's own start would be drawn from the training's random numbers."""
    return nn.Linear(width, dimension, bias=False, device="meta").to_empty(device="cpu")


def save_pooler(pooler: Pooler, file: Path) -> None:
    """Write the pooler as safetensors, beside and then in place. The same pooler gives the same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(pooler.state_dict().items())}
    with writing(file) as temporary:
        save_file(tensors, temporary, {"format": "pt"})


def load_pooler(file: Path) -> Pooler:
    """Read what `save_pooler` wrote, onto the CPU; the shapes say what it is. ModelError when it is missing, damaged or
    odd: other tensors, shapes that do not fit together, another type than fp32, or values that are no numbers.
    """
    try:
        with safe_open(file, "pt") as there:
            shapes = {name: _shape(there, name) for name in there.keys()}  # noqa: SIM118
            width, dimension = _sizes(shapes, file)
            tensors = {name: there.get_tensor(name) for name in shapes}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: can't be read: {str(error)[:200]}", HINT) from error
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"{file}: {name} holds values that are no numbers", HINT)
    pooler = Pooler(width, dimension, "attention" if QUERY in tensors else "mean", start=False)
    pooler.load_state_dict(tensors)
    return pooler


def _shape(there: Any, name: str) -> tuple[int, ...]:
    found = there.get_slice(name)
    return tuple(found.get_shape()) if found.get_dtype() == "F32" else ()


def _sizes(shapes: Mapping[str, tuple[int, ...]], file: Path) -> tuple[int, int]:
    """Return D and D_e by the shapes of the tensors, before anything as large as they say is read."""
    out = shapes.get(OUT, ())
    width, dimension = (out[1], out[0]) if len(out) == 2 else (0, 0)
    mean = {OUT: (dimension, width)}
    fits = shapes in (mean, mean | {QUERY: (width,), KEY: (width, width)})
    if not fits or not (0 < width <= WIDEST and 0 < dimension <= WIDEST):
        there = ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())[:5])
        raise ModelError(f"{file}: not a pooler of fp32: {there[:200]}", HINT)
    return width, dimension
