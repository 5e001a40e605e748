"""`train_sft` as a program of its own, for a test that kills it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from afmrl_cli.listener import Silent
from afmrl_cli.settings import Settings
from afmrl_cli.sft.run import train_sft
from afmrl_cli.store.folder import CatalogFolder

if __name__ == "__main__":
    settings = Settings.model_validate(json.loads(Path(sys.argv[2]).read_text()))
    train_sft(CatalogFolder(Path(sys.argv[1])), settings, Silent())
