"""What the vision tower makes of a picture, computed once for all rollouts of a step.

A group's G rollouts show the same pictures, and each is seen by the prefill of generation, by the reference policy
and by the update. The tower is frozen (the adapter is the language model's alone), so all of them may share one result.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch


class VisionOnce:
    """Remembers a model's picture features by the pixels' bytes, while `remembering` and until `forget`.

    `computed` counts the pictures that the tower has seen, `requested` those that were wanted.
    """

    def __init__(self, trunk: Any) -> None:
        """Keep the tower. `trunk`: the model without its vocabulary head, whose `get_image_features` gives one tensor a
        picture.
        """
        self.trunk = trunk
        self.computed = self.requested = 0
        self._known: dict[bytes, tuple[torch.Tensor, ...]] = {}

    def forget(self) -> None:
        """Let go of all features: the next step has other pictures."""
        self._known.clear()

    @contextlib.contextmanager
    def remembering(self) -> Iterator[None]:
        """Make the model, inside the block, ask here for its picture features."""
        ask = type(self.trunk).get_image_features.__get__(self.trunk)

        def features(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **options: Any) -> Any:
            return self._features(ask, pixel_values, image_grid_thw, options)

        self.trunk.get_image_features = features
        try:
            yield
        finally:
            del self.trunk.get_image_features  # the class's own method is there again

    def _features(self, ask: Any, pixels: torch.Tensor, grids: torch.Tensor, options: dict[str, Any]) -> Any:
        parts = torch.split(pixels, grids.prod(-1).tolist())
        keys = [_key(part, grid) for part, grid in zip(parts, grids.tolist(), strict=True)]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        new = sorted(i for key, i in first.items() if key not in self._known)
        self.requested, self.computed = self.requested + len(keys), self.computed + len(new)
        # The reward may ask in inference mode; what that makes can't be used where gradients are recorded.
        with torch.inference_mode(False), torch.no_grad():
            if new:
                made = ask(torch.cat([parts[i] for i in new]), grids[new], **options)
                layers = [made.pooler_output, *(getattr(made, "deepstack_features", None) or ())]
                self._known.update((keys[i], tuple(each)) for i, *each in zip(new, *layers, strict=True))
        known = zip(*(self._known[key] for key in keys), strict=True)
        return SimpleNamespace(pooler_output=next(known), deepstack_features=list(known))


def _key(pixels: torch.Tensor, grid: list[int]) -> bytes:
    raw = pixels.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes()
    return hashlib.sha1(raw + repr((grid, pixels.dtype)).encode(), usedforsecurity=False).digest()
