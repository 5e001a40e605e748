"""Fetching a model from the hub: its size and licence are shown first, and nothing comes without a yes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from ..errors import ModelError
from ..listener import Listener
from ..settings import ModelSettings
from ..trust import check_download

PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.jinja", "README.md", "LICENSE*"]
"""What is fetched from the hub: never code, never pickled weights. README.md and LICENSE tell the licence."""
GB = 1_000_000_000
SECONDS = 5


def download(settings: ModelSettings, name: str, revision: str, listener: Listener) -> Path:
    """Fetch hub model `name` into the local cache and return its folder there.

    Size and licence are asked for first; `model.fetch` says yes, no, or that a person is asked. UsageError when only a
    folder has named the model; ModelError with one clear reason when it can't be fetched or nobody said yes.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    check_download(settings, name)
    where, by_hand = constants.HF_HUB_CACHE, f"fetch it where there is a network (hf download {name}), or name a folder"
    if constants.is_offline_mode():
        raise ModelError(f"{name} is not in the local cache ({where}), and HF_HUB_OFFLINE is set", by_hand)
    if settings.fetch == "no":
        raise ModelError(f"{name} is not in the local cache ({where}), and model.fetch = no", by_hand)
    with _in_words(name, revision, by_hand):
        what = _describe(name, revision)
    if settings.fetch == "ask" and not listener.ask(f"Fetch {what} from {constants.ENDPOINT} into {where}?"):
        yes = "--set model.fetch=yes (or AFMRL_MODEL_FETCH=yes) fetches it"
        raise ModelError(
            f"{what}: not on this disk, and not fetched without a yes", f"{yes}; so does hf download {name}"
        )
    if not sys.stderr.isatty():
        disable_progress_bars()
    listener.note(f"fetching {what} from {constants.ENDPOINT} into {where}")
    with _in_words(name, revision, by_hand):
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=PATTERNS, etag_timeout=SECONDS))


def _describe(name: str, revision: str) -> str:
    """Ask the hub for name, size and licence of a model, such as "Qwen/Qwen3-VL-2B-Instruct (4.3 GB, apache-2.0)"."""
    from huggingface_hub import HfApi

    found = HfApi().model_info(name, revision=revision or None, files_metadata=True, timeout=SECONDS)
    files = [file for file in found.siblings or [] if any(fnmatch(file.rfilename, pattern) for pattern in PATTERNS)]
    size = sum(file.size or 0 for file in files)
    licence = found.card_data.license if found.card_data else None
    return f"{name} ({size / GB:.1f} GB, {licence or 'no licence is named'})"


@contextmanager
def _in_words(name: str, revision: str, by_hand: str) -> Iterator[None]:
    """Turn what the hub's library raises into a ModelError of one line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # Of the library of HTTP that this version of the hub's stands on: no answer, or a broken one.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except GatedRepoError as error:
        raise ModelError(f"{name}: the hub wants you to log in or to accept its licence", "hf auth login") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name}: the hub has no revision {revision!r}", "see the model's page") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{name}: no such folder here and no such model on the hub", "check the spelling") from error
    except (http_error, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{name} is not in the local cache and can't be fetched: {reason[:200]}", by_hand) from error
