"""Calls of the command line in this process."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def document(*words: str, code: int = 0) -> dict[str, Any]:
    """The JSON document that a command prints."""
    result = call(*words, "--json")
    assert result.exit_code == code, result.output
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content
