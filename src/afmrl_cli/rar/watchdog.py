"""Is the policy collapsing? Compared with what it was at the start, which is the SFT policy.

Users of retrieval rewards report runs whose reward falls to 0 amid gibberish after a few hundred steps, and the reward
itself is what is being gamed. So three things are held against the start, by a margin:

    rollouts    valid share, mean of the last five steps, against the first step's (whose rollouts are the SFT policy's)
    held out    valid share and recall, or MRR, of greedy answers to queries that are never trained on, against step 0's

and a generator that gives no valid answer at all is refused before anything is trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RECENT = 5
HOPELESS = 3
"""Steps without a single valid answer after which nothing better is to be expected."""


@dataclass
class Watchdog:
    """`margin` is a share: 0.1 allows a metric to fall from 0.60 to 0.50. What comes back is why to stop, or ""."""

    margin: float
    first_valid: float | None = None
    recent_valid: list[float] = field(default_factory=list)
    held_out_valid: float | None = None
    held_out_value: float | None = None

    def rollouts(self, valid_share: float) -> str:
        """Note after each step the share of its rollouts that were valid."""
        if self.first_valid is None:
            self.first_valid = valid_share
        self.recent_valid = [*self.recent_valid, valid_share][-RECENT:]
        mean = sum(self.recent_valid) / len(self.recent_valid)
        if len(self.recent_valid) == RECENT and mean < self.first_valid - self.margin:
            return f"of the sampled answers {mean:.0%} are valid, {self.first_valid:.0%} were at the start"
        return ""

    def any_valid(self) -> bool:
        """Return false once the first steps have brought no valid answer: every reward was the same punishment."""
        return len(self.recent_valid) < HOPELESS or bool(self.first_valid) or any(self.recent_valid)

    def held_out(self, valid_share: float, value: float, metric: str) -> str:
        """Check at each validation on the held-out queries, the first of them before the first step; `value` is of
        `metric`.
        """
        if self.held_out_valid is None or self.held_out_value is None:
            self.held_out_valid, self.held_out_value = valid_share, value
        if valid_share < self.held_out_valid - self.margin:
            return f"of the held-out answers {valid_share:.0%} are valid, {self.held_out_valid:.0%} were at the start"
        if value < self.held_out_value - self.margin:
            return f"held-out {metric} is {value:.3f}, it was {self.held_out_value:.3f} at the start"
        return ""
