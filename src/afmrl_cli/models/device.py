"""Which device will be used and how large it is, found without torch: ids and messages need it before any model."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
from pathlib import Path
from typing import Literal

from ..errors import ModelError
from ..settings import ModelSettings

Device = Literal["cpu", "cuda"]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def torch_build() -> str:
    """Return the CUDA version that the installed torch was built for ("12.8"), "" for a CPU build or no torch."""
    spec = importlib.util.find_spec("torch")  # finds the package, does not run it
    if spec is None or spec.origin is None:
        return ""
    version = Path(spec.origin).with_name("version.py").read_text("utf-8")
    found = re.search(r"^cuda\b[^=]*=\s*'([^']*)'", version, re.MULTILINE)
    return found.group(1) if found else ""


@functools.cache
def cuda_devices() -> int:
    """Return NVIDIA GPUs that the driver offers (CUDA_VISIBLE_DEVICES counts); 0 without driver or CUDA build
    of torch.
    """
    if not torch_build():
        return 0
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:  # no NVIDIA driver on this machine
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
        return count.value
    return 0


def device_of(settings: ModelSettings) -> Device:
    """Return `model.device`, with auto resolved: CUDA where there is a GPU. ModelError when CUDA is set and
    absent.
    """
    if settings.device == "cpu":
        return "cpu"
    if cuda_devices():
        return "cuda"
    if settings.device == "cuda":
        why = "no NVIDIA GPU was found" if torch_build() else "the installed torch is a CPU build"
        raise ModelError(f"model.device = cuda, but {why}", "set model.device=cpu, or see `afmrl doctor`")
    return "cpu"


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep large blocks that are freed, up to 256 MiB, for the next layer. glibc gives them back to
    the system and gets them again page by page, which is a third of a small network's time. Others are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
    mallopt(M_TRIM_THRESHOLD, 256 * 2**20)


@functools.cache
def device_memory() -> int | None:
    """Return all bytes of the first GPU, as the driver counts them; None without one."""
    if not cuda_devices():
        return None
    driver, number, size = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0), ctypes.c_size_t(0)
    if driver.cuDeviceGet(ctypes.byref(number), 0) or driver.cuDeviceTotalMem_v2(ctypes.byref(size), number):
        raise ModelError("the driver does not say how large the GPU's memory is", "set model.precision")
    return size.value


def memory_here(settings: ModelSettings) -> int | None:
    """Return the bytes of the device that models would use, all of it; None where a GPU is set and absent."""
    if settings.device == "cpu" or (settings.device == "auto" and not cuda_devices()):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return device_memory()
