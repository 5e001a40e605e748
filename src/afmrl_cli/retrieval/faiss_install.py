"""Which FAISS is installed.

faiss-cpu and faiss-gpu both own the folder `faiss`: installed together, the later one has overwritten half of the
earlier one, and removing either breaks the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTIONS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11")


@dataclass(frozen=True)
class FaissConflict:
    """More than one FAISS is installed, and how to mend it."""

    installed: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def message(self) -> str:
        """Say it in one line."""
        return f"{' and '.join(self.installed)} are both installed and overwrite each other"


def installed_faiss() -> dict[str, str]:
    """Return name and version of each installed distribution of FAISS; nothing is imported."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def faiss_conflict() -> FaissConflict | None:
    """Return the conflict, None when at most one FAISS is installed. What is meant is taken to be the GPU build, which
    nobody has by accident.
    """
    found = installed_faiss()
    if len(found) < 2:
        return None
    keep = next(name for name in ("faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11", "faiss-cpu") if name in found)
    remove = f"python -m pip uninstall -y {' '.join(found)}"
    return FaissConflict(tuple(found), (remove, f"python -m pip install {keep}=={found[keep]}"))
