"""The user's own settings file, `~/.config/afmrl/afmrl.toml` (under XDG_CONFIG_HOME where that is set): what a folder,
which may come from anywhere, can't allow by itself. It knows three keys:

    allowed_hosts = ["127.0.0.1:8000", "api.example.com"]   # endpoints that any folder may name; no port: https
                                                            # and buckets: "s3://my-shop"
    trusted_folders = ["/srv/shops"]                        # whose afmrl.toml, and that of what is in them, is my own
    api_key_host = "api.example.com"                        # what AFMRL_API_KEY is for: it is sent to no other host
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import UsageError

NAME = "afmrl.toml"


class OwnSettings(BaseModel):
    """What the user's own file says."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    allowed_hosts: list[str] = []
    trusted_folders: list[str] = []
    api_key_host: str = ""


def own_file() -> Path:
    """Return the path of the user's own settings file, which need not exist."""
    home = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # A relative one would lie in the folder that the user stands in, which may be the stranger's.
    return (home if home.is_absolute() else Path.home() / ".config") / "afmrl" / NAME


def own_settings() -> OwnSettings:
    """Read the user's own settings. Raises UsageError when the file can't be used."""
    file = own_file()
    if not file.is_file():
        return OwnSettings()
    try:
        return OwnSettings.model_validate(tomllib.loads(file.read_text("utf-8-sig")))
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(OwnSettings.model_fields)
        raise UsageError(f"{file}: {first['loc'][0]}: {first['msg'][:200]}", f"it knows {known}") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{file}: can't be read as TOML: {str(error)[:200]}", "mend the file or remove it") from error


def is_trusted(root: Path) -> bool:
    """Tell whether the user trusts the folder `root`, or one that it lies in."""
    folders = [Path(folder).expanduser() for folder in own_settings().trusted_folders]
    return any(folder.is_absolute() and lies_in(root, folder.resolve()) for folder in folders)


def lies_in(path: Path, root: Path) -> bool:
    """Tell whether `path`, links followed, lies in `root`."""
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL
        return False
