"""What a stage has come to: the validation before its first step and of its best one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """Metrics before the first step, and of the best step after it ({}: none yet)."""

    start: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)

    def add(self, found: Mapping[str, float], step: int, by: str) -> bool:
        """Take note of a validation; return whether it is the best so far of those after the first step."""
        if step == 0:
            self.start = dict(found)
            return False
        if self.best and found[by] <= self.best[by]:
            return False
        self.best = dict(found)
        return True

    def written(self) -> dict[str, Any]:
        """Return it for a state."""
        return asdict(self)


def tell(step: int, found: Mapping[str, float]) -> str:
    """Return a validation in words."""
    return (
        f"step {step}: validation nDCG@10 {found['ndcg@10']:.3f} alone, {found['ndcg@10_fused']:.3f} fused by the "
        f"weight {found['weight']:.2f}, {found['ndcg@10_retrieval']:.3f} by the retrieval"
    )
