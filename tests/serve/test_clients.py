"""The clients of docs/serve.md run as they are printed; only the port is the test's own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.test_run import SECONDS, process

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text("utf-8")


@pytest.mark.slow
def test_the_documented_clients_find_something(shop: Path, model: Path) -> None:
    lines = re.findall(r"^    (curl localhost.*)$", PAGE, re.MULTILINE)
    [program] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [script] = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)
    shutil.copyfile(shop / "images" / "4.png", shop / "photo.jpg")
    with process(shop, model) as (_, address):
        port = address.rstrip("/").rpartition(":")[2]

        def run(*words: str) -> str:
            own = [word.replace(":8765", f":{port}") for word in words]
            return subprocess.run(own, cwd=shop, capture_output=True, text=True, timeout=SECONDS, check=True).stdout

        counts = [len(json.loads(run("sh", "-c", line))["hits"]) for line in lines if shutil.which("curl")]
        assert counts in ([], [3, 10])
        printed = run(sys.executable, "-c", f"{program}\nprint(like_it['hits'][0]['brand'])").splitlines()
        assert [line[0] for line in printed[:3]] == ["1", "2", "3"] and printed[3:] == ["Luma"]
        if shutil.which("node"):
            file = 'import { readFileSync } from "fs";\nconst file = new Blob([readFileSync("photo.jpg")]);\n'
            printed = run("node", "--input-type=module", "-e", file + script).splitlines()
            assert len(printed) == 10 and re.fullmatch(r"1 s\d+ .+ /photos/s\d+/0", printed[0])
