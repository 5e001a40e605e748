"""A server on 127.0.0.1 that stands in for a reasoning model: a rule, no model.

    python -m benchmarks.reasoner [--port 8123] [--wrong 0.3] [--named 0.05] [--cut 0.03]
    afmrl train-recommender --set reasoning.endpoint=http://127.0.0.1:8123 --set reasoning.endpoint_model=rule ...

It speaks chat completions and knows the two prompts of `afmrl_cli.recommender.reasoning_prompt`. Asked about a history
it counts the attribute values in the listings' texts (what stands behind the last semicolon, between commas) and writes
the four steps with the most frequent; of equally frequent ones the latest comes first. Shares of its answers are bad:
wrong ones say values that stand nowhere in the history, others name the latest product's title, others are cut off.
Asked to judge, it takes the candidate that has the most of the criteria, plus noise that grows with the temperature.

What that means: its right answers are about as good as counting can be, its wrong ones are utterly wrong, and it reads
its own words without error. A model's mistakes are subtler, and it judges worse. So figures made with it show that
writing, filtering, storing and mixing work, and how much a filter can find at best; they are no estimate of what
reasoning by a model brings.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

from tests.http_server import serving

from afmrl_cli.nano.garment import CATEGORIES, values_of
from afmrl_cli.recommender.reasoning_prompt import ANSWER, CHOICE, JUDGING, WRITING

CRITERIA = 4
VALUES = sorted(
    {value for kind in CATEGORIES for values in values_of(kind).values() for value in values} | {*CATEGORIES}
)
LISTED = re.compile(r"^\d+\. (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Faults:
    """Shares of answers that say what is not in the history, name its latest product, or are cut off."""

    wrong: float = 0.3
    named: float = 0.05
    cut: float = 0.03

    def of(self, prompt: str) -> str:
        """Return which fault the answer to `prompt` has, always the same; "" for none."""
        drawn = Random(f"fault {prompt}").random()
        for name, share in (("wrong", self.wrong), ("named", self.named), ("cut", self.cut)):
            if drawn < share:
                return name
            drawn -= share
        return ""


def values_in(text: str) -> list[str]:
    """Return the attribute values of a listing's text."""
    return [value.strip() for value in text.rpartition(";")[2].split(",") if value.strip()]


def criteria_of(reasoning: str) -> list[str]:
    """Return the properties to search by that a reasoning names."""
    found = re.search(r"^Criteria: (.*)$", reasoning, re.MULTILINE)
    return [part.strip() for part in found[1].split(",")] if found else []


def matches(reasoning: str, candidate: str) -> int:
    """Count the criteria of a reasoning that a listing's text has."""
    own = set(values_in(candidate))
    return sum(each in own for each in criteria_of(reasoning))


def write(prompt: str, faults: Faults) -> tuple[str, bool]:
    """Return a reasoning about the history in `prompt`, and whether it is cut off."""
    history = LISTED.findall(prompt.removeprefix(WRITING))
    fault = faults.of(prompt)
    counts = Counter(value for text in reversed(history) for value in values_in(text))
    best = [value for value, _ in counts.most_common(CRITERIA)]
    if fault == "wrong":
        absent = [value for value in VALUES if value not in counts]
        best = Random(f"wrong {prompt}").sample(absent, CRITERIA)
    kind = next((value for value in best if value in CATEGORIES), "garment")
    named = f" such as {history[-1].partition(';')[0]}" if fault == "named" and history else ""
    steps = (
        f"Preference signals: {', '.join(best)}",
        f"Next intent: a {kind}{named}",
        f"Criteria: {', '.join(best)}",
        f"Profile: a shopper who likes {' and '.join(best[:2])}.",
    )
    text = "\n".join(steps)
    return (text[: len(text) // 2], True) if fault == "cut" else (text, False)


def judge(prompt: str, temperature: float) -> str:
    """Return the number of the candidate that has the most of the reasoning's criteria, with noise."""
    reasoning, _, listed = prompt.removeprefix(JUDGING).partition(CHOICE)
    candidates: Sequence[str] = LISTED.findall(listed.removesuffix(ANSWER))
    rng = Random(f"judge {prompt}")
    noise = [-math.log(-math.log(rng.random() or 1e-12)) for _ in candidates]
    scores = [matches(reasoning, text) + temperature * drawn for text, drawn in zip(candidates, noise, strict=True)]
    return str(1 + max(range(len(scores)), key=scores.__getitem__)) if scores else "0"


@contextmanager
def reasoner(faults: Faults, port: int = 0) -> Iterator[str]:
    """Run the server and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = body["messages"][0]["content"][-1]["text"]
            if prompt.startswith(JUDGING):
                text, cut = judge(prompt, float(body.get("temperature", 0.0))), False
            else:
                text, cut = write(prompt, faults)
            message = {"role": "assistant", "content": text}
            choice = {"message": message, "finish_reason": "length" if cut else "stop"}
            content = json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...

    with serving(ThreadingHTTPServer(("127.0.0.1", port), Handler)) as address:
        yield address


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8123)
    for name, share in vars(Faults()).items():
        parser.add_argument(f"--{name}", type=float, default=share)
    chosen = parser.parse_args()
    with reasoner(Faults(chosen.wrong, chosen.named, chosen.cut), chosen.port) as address:
        print(f"{address}: ends with Ctrl-C", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("ended")


if __name__ == "__main__":
    main()
