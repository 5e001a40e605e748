"""The methods of training, in the order in which a round of `cycle` goes through them.

A new one is a section of `settings`, a file with its `Method` (as `sft/run.py`), its trainer, its command, and a line
here.
"""

from __future__ import annotations

from .rar.run import RAR
from .sft.run import SFT
from .training.run import AGCL

METHODS = {method.name: method for method in (SFT, AGCL, RAR)}
