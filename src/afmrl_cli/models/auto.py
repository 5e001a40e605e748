"""What `model.preset = auto` comes to here: by what is named, what the shop's photos are, and what the machine can do.

    a checkpoint of the settings was trained on a preset's base    that preset
    most of the shop's photos were drawn by this package           nano
    a GPU that is large enough, and qwen3's weights on this disk
    or allowed to be fetched (model.fetch = yes)                   qwen3
    else                                                           light

Nothing is fetched and no weights are opened to find out. Who asks twice gets the same answer, terminal or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..catalog.rendered import is_rendered
from ..errors import ModelError
from ..settings import ModelSettings, Settings
from ..store.checkpoints import Checkpoints, Role, base_role
from ..store.folder import CatalogFolder
from .device import device_of, memory_here
from .presets import NANO, PRESETS, base_name, local_folder

GIB = 1 << 30
LEAST_GPU = 6 * GIB
"""Of memory, for the least that can be done with qwen3 on photos of usual size."""
ROLES: tuple[Role, ...] = ("generator", "embedder")


@dataclass(frozen=True)
class Chosen:
    """Settings with a preset in them, and why it is that one ("" where the settings name it)."""

    settings: Settings
    why: str = ""

    @property
    def line(self) -> str:
        """Return what to tell: "model.preset = auto: light, since there is no GPU here"."""
        return f"model.preset = auto: {self.settings.model.preset}, since {self.why}" if self.why else ""


def choose_preset(settings: Settings, folder: CatalogFolder | None) -> Chosen:
    """Return the settings with `auto` resolved for the catalog in `folder` (None: for no catalog in particular)."""
    if settings.model.preset != "auto":
        return Chosen(settings)
    preset, why = _choose(settings, folder)
    model = settings.model.model_copy(update={"preset": preset})
    return Chosen(settings.model_copy(update={"model": model}), why)


def open_roles(settings: Settings, roles: Sequence[Role]) -> list[Role]:
    """Return those of `roles` whose model the preset says: no model of their own is named, and no server."""
    model = settings.model
    served = {"generator": settings.attributes.endpoint, "embedder": settings.embed.endpoint}
    return [role for role in roles if not getattr(model, base_role(role)) and not served.get(role)]


def _choose(settings: Settings, folder: CatalogFolder | None) -> tuple[str, str]:
    if folder is not None:
        if found := _preset_of_checkpoints(settings.model, folder):
            return found
        if is_rendered(folder, settings):
            return NANO, "this shop's photos are drawn ones"
    try:
        on_gpu = device_of(settings.model) == "cuda"
    except ModelError:  # a GPU is set and there is none: the command that needs it says so
        on_gpu = False
    memory = (memory_here(settings.model) if on_gpu else 0) or 0
    if not on_gpu:
        return "light", "there is no GPU here"
    if memory < LEAST_GPU:
        return "light", f"the GPU has {memory / GIB:.1f} GiB and qwen3 takes {LEAST_GPU // GIB}"
    qwen3 = settings.model.model_copy(update={"preset": "qwen3"})
    absent = [base_name(qwen3, role) for role in open_roles(settings, ROLES) if local_folder(qwen3, role) is None]
    if absent and settings.model.fetch != "yes":
        return "light", f"{' and '.join(absent)} are not on this disk (model.preset=qwen3 or model.fetch=yes gets them)"
    return "qwen3", f"there is a GPU of {memory / GIB:.0f} GiB"


def _preset_of_checkpoints(model: ModelSettings, folder: CatalogFolder) -> tuple[str, str] | None:
    """Return the preset on whose base an adapter that the settings name was trained, and the reason."""
    roles: tuple[Role, ...] = ("embedder", "generator", "reranker", "recommender", "vision")
    for role in roles:
        name: str = getattr(model, f"{role}_checkpoint")
        if not name or getattr(model, base_role(role)):
            continue
        try:
            base = Checkpoints(folder.checkpoints).find(name, role).base
        except ModelError:  # which the command that needs it says
            continue
        for preset, names in PRESETS.items():
            if names[base_role(role)] == base:
                return preset, f"{name} was trained on {base}"
    return None
