"""What a folder's afmrl.toml may not do by itself, since it may have come with the catalog from anywhere.

Settings that reach out of the folder count only as the user's own word: a flag, an `AFMRL_*` variable, or the user's
own file (`own`). AFMRL_API_KEY_HOST says what `api_key_host` says there. Without either the key goes only to an
endpoint that is the user's own word, and never to one that a folder names.
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

from .errors import UsageError
from .own import is_trusted, lies_in, own_file, own_settings
from .section import EndpointSettings, Section, as_list
from .settings import Settings
from .store.folder import SETTINGS_FILE

KEY_HOST_VARIABLE = "AFMRL_API_KEY_HOST"
SERVE_TOKEN_VARIABLE = "AFMRL_SERVE_TOKEN"
OPEN_DOORS = {
    "catalog.allow_outside": (True, "reads photos from anywhere on this disk"),
    "catalog.fetch_private": (True, "reaches into private networks and this machine"),
    "model.fetch": ("yes", "fetches gigabytes without asking"),
}
"""The value that opens a door, and what it lets in."""
EXPOSED = ("serve.address", "serve.hosts")
"""Where the search service can be reached: in a folder's file only as it is anyway, on this machine alone."""
FILES = ("sft.file", "dedupe.verdicts", "triplets.verdicts", "eval.labels", "recommend.interactions")
HUB_SYSTEMS = ("clip", "text")
SENT = {"reasoning": "customers' histories"}
"""What an endpoint of a section would be sent, where that is not photos and texts of products."""


def mark_foreign(settings: Settings, keys: Container[str], file: Path) -> None:
    """Note in `settings` which of their values only `file`, the folder's, has named: those of `keys`, the dotted
    keys that come from it. Nothing is marked where the user trusts the folder.

    Raises UsageError at once for what would open a door by being true, or a file out of the folder.
    """

    def values(key: str) -> list[str]:
        section, _, name = key.partition(".")
        names = as_list(getattr(getattr(settings, section), name)) if key in keys else []
        return names if isinstance(names, list) else []

    opened = (key for key, (value, _) in OPEN_DOORS.items() if key in keys and settings.value_of(key) == value)
    door = next(opened, None)
    exposed = next((key for key in EXPOSED if key in keys and settings.value_of(key) != Settings().value_of(key)), None)
    root = file.parent.resolve()
    files = [(key, name) for key in FILES for name in values(key) if not lies_in(root / name, root)]
    hub = {name for key in ("model.generator", "model.embedder") for name in values(key)}
    systems = [name.partition(":") for name in values("eval.systems")]
    compared = {name.strip() for kind, _, name in systems if kind.strip() in HUB_SYSTEMS}
    served = {section: own for section, own in settings if isinstance(own, EndpointSettings)}
    endpoints = {section: set(values(f"{section}.endpoint")) for section in served}
    if not (door or exposed or files or hub or compared or any(endpoints.values())) or is_trusted(root):
        return
    if exposed:
        raise UsageError(
            f"{file}: {exposed} would let other machines or pages in: a folder can't allow that by itself",
            f"your own word counts: --set {exposed}=..., {_variable(exposed)}=..., or trusted_folders in {own_file()}",
        )
    if door:
        value = str(OPEN_DOORS[door][0]).lower()
        hint = (
            f"your own word counts: --set {door}={value}, {_variable(door)}={value}, or trusted_folders in {own_file()}"
        )
        message = f"{file}: {door} = {value} {OPEN_DOORS[door][1]}: a folder can't allow that by itself"
        raise UsageError(message, hint)
    for key, name in files:
        hint = f"copy the file there, or say it yourself: --set {key}=..., or trusted_folders in {own_file()}"
        raise UsageError(f"{file}: {key}: {name[:200]} lies outside of the catalog's folder", hint)
    for section, own in served.items():
        own.mark(endpoints[section])
    settings.model.mark(hub)
    settings.eval.mark(compared)


def check_endpoint(settings: Section, address: str, section: str) -> bool:
    """Return whether `address`, the endpoint of the settings' `section`, is the user's own word, not only a folder's.

    Raises UsageError when a folder named it and the user's own settings do not allow its host.
    """
    if address not in settings.foreign:
        return True
    host = _host(address)
    if not any(_same_host(allowed, address) for allowed in own_settings().allowed_hosts):
        sent = SENT.get(section, "photos and texts")
        raise UsageError(
            f"{section}.endpoint in this folder's {SETTINGS_FILE} would send its {sent} to {address[:200]}",
            f"if that is what you want: --set {section}.endpoint={address[:200]}, or allowed_hosts = [{host!r}] in "
            f"{own_file()}",
        )
    return False


def key_goes_to(address: str, own_word: bool) -> bool:
    """Return whether AFMRL_API_KEY may be sent to `address`; `own_word` is what `check_endpoint` returned for it."""
    named = os.environ.get(KEY_HOST_VARIABLE, "").strip() or own_settings().api_key_host
    return _same_host(named, address) if named else own_word


def check_download(settings: Section, name: str) -> None:
    """Raise UsageError when only a folder has named the hub model `name`, which is about to be fetched."""
    if name in settings.foreign:
        raise UsageError(
            f"{name}: is not on this disk, and is not fetched because this folder's {SETTINGS_FILE} alone names it",
            f"fetch it yourself (hf download {name}), give it as a flag, or set trusted_folders in {own_file()}",
        )


def _variable(key: str) -> str:
    return "AFMRL_" + key.upper().replace(".", "_")


def _host(address: str) -> str:
    """Return `host:port` of an http or https address, the port left out where it is that of https."""
    import httpx  # as httpx reads it: another parser may find another host in the same address

    try:
        url = httpx.URL(address.strip())
    except httpx.InvalidURL:
        return ""
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = url.port or (443 if url.scheme == "https" else 80)
    return host if url.scheme == "https" and port == 443 else f"{host}:{port}"


def _same_host(allowed: str, address: str) -> bool:
    return bool(host := _host(address)) and host == _host(allowed if "://" in allowed else f"https://{allowed}")
