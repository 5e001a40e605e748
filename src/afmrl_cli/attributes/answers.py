"""From what a server's model wrote to attribute text: thinking, fences and special tokens taken off, JSON as pairs.

    answer = [thinking] [prose] (JSON or key: value text, fenced or not) [prose] [tokens]

Servers differ in what they leave of a model's habits, and models in how they write JSON. What is read is one object,
one list of pairs, or one level of wrapping around them. Whatever else stands there (prose, an error, two different
objects) is handed on as it is, and is invalid for the strict parser: nothing is guessed.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

from .lines import pairs_in_lines
from .parse import InvalidAttributes, clean_value, parse_attributes, write_attributes

LONGEST_THOUGHT, LONGEST_ANSWER = 200_000, 8_000
"""Characters, with and without thinking; a longer answer is no attribute text, and is not searched for any."""
MOST_TRIES = 30
"""Places in an answer where JSON may begin."""
DEEPEST = 3

_WORDS = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|rationale|inner_monologue|cot)"
_OPENED = re.compile(rf"[<\[◁]\|?(?:begin_of_|start_|seed:)?{_WORDS}\|?[>\]▷]|<\|channel>thought", re.IGNORECASE)
_CLOSED = re.compile(rf"[<\[◁]\|?(?:/|end_of_|end_)(?:seed:)?{_WORDS}\|?[>\]▷]|<channel\|>", re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+).{0,60}?<\|message\|>", re.DOTALL)
_BARE_CHANNELS = re.compile(r"\A\s*(?:analysis|commentary).*assistantfinal", re.DOTALL)
"""gpt-oss's channels where the server has left out the special tokens between them."""
_ANNOUNCED = re.compile(r"\A\s*here is my thought process:.*?here is my response:", re.DOTALL | re.IGNORECASE)
_ANSWER = re.compile(
    r"<(answer|response|output|final|final_answer|solution|result|attributes|json)>(.*?)(?:</\1>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_FENCE = re.compile(r"(?:```|~~~)[ \t]*(?:[A-Za-z][\w+-]*)?[ \t]*\n?(.*?)(?:```|~~~|\Z)", re.DOTALL)

SPECIAL_TOKEN = re.compile(
    r"<[|｜][^<>\n]{1,60}?[|｜]>"  # <|im_end|>, <｜end▁of▁sentence｜>
    r"|<[|｜][\w▁.:/-]{1,40}>|<[\w▁.:/-]{1,40}[|｜]>"  # <|turn>, <channel|>
    r"|</?[A-Za-z][\w.:-]{0,40}>|<0x[0-9A-Fa-f]{2}>|<\[[^\[\]<>]{1,60}\]>"  # </s>, <end_of_turn>, <0x0A>
    r"|<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|IMG(?:_BREAK|_END)?|THINK|EOS|BOS|PAD"
    r"|UNK|SEP|CLS|MASK|[gs]MASK|UNUSED_TOKEN_\d+|control_\d+)\]"
    r"|<[|｜][\w▁]{0,40}\Z"  # one that was cut off
)
"""Special tokens as the families of models spell them: no text of a product and no value holds one."""
_ENDS_TURN = re.compile(
    r"end|eo[sdtmap](?![a-z])|stop|return|start|user|assistant|system|</s>|turn\||inst", re.IGNORECASE
)
_HEADER = re.compile(
    r"\A\s*(?:<[|｜]?(?:im_start|start|start_header_id|start_of_turn|start_of_role|turn)[|｜]?>\s*)?"
    r"(?:assistant|model)\s*(?:<[|｜](?:end_header_id|end_of_role|message|im_sep)[|｜]>|\n)\s*"
)
"""The head of the model's own turn, where a server leaves it in the answer."""

_WRAPPERS = {
    *("product", "products", "item", "items", "listing", "result", "results", "output", "answer", "response", "data"),
    *(
        "content",
        "pairs",
        "arguments",
        "parameters",
        "fields",
        "features",
        "properties",
        "specs",
        "specifications",
        "details",
        "json",
        "object",
    ),
    *("merkmale", "eigenschaften", "caratteristiche", "características", "egenskaper", "属性", "特徴", "속성"),
}
_KEYS = {"key", "name", "attribute", "attributename", "property", "label", "field", "feature", "trait", "k"}
_VALUES = {"value", "values", "val", "attributevalue", "v"}
_BESIDE = {"confidence", "score", "source", "id", "type", "description", "evidence", "reason", "index"}
"""What may stand beside a key and its value, or beside the attributes, and is none of them."""
_META = _BESIDE - {"type", "description"} | {"status", "success", "ok", "model", "note", "notes"}
_THOUGHTS = {"reasoning", "thinking", "thought", "thoughts", "analysis", "explanation", "rationale", "chainofthought"}
_ERRORS = {"error", "errors", "exception", "traceback"}
_LANGUAGE = re.compile(r"[a-z]{2}(?:[-_][A-Za-z]{2,4})?")
_BRACKET = re.compile(r"[{\[]")
_QUOTES = str.maketrans("“”„«»‘’", '"""""\'\'')
_NAMES = {"null": None, "true": True, "false": False}


class _Object:
    """A JSON object; a dict would hide a key that stands twice."""

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self.items = items


def attribute_text(answer: str) -> str:
    """Return `answer` as attribute text where it holds JSON, else its text, without thinking, fences and special
    tokens.

    Null and empty values are dropped (not seen), lists joined by commas. What attribute text can't hold, such as an
    object of an unknown kind inside the object, stays JSON and so is invalid for the strict parser.
    """
    text = without_thinking(answer) if len(answer) <= LONGEST_THOUGHT else answer
    if len(text) > LONGEST_ANSWER:
        return text
    if marked := _ANSWER.findall(text):
        text = marked[-1][1]
    turn = first_turn(text)
    for part in (turn, text):  # a token inside of a JSON string ends no turn
        if (pairs := _pairs_in(part)) is not None:
            return write_attributes((key, value) for key, value in pairs if value)
    fences = _FENCE.findall(turn)
    rest = SPECIAL_TOKEN.sub(" ", fences[0] if len(fences) == 1 else turn).strip()
    return pairs_in_lines(rest) or rest


def without_thinking(text: str) -> str:
    """Return `text` without what the model thought before its answer, as the families of models mark it.

    A thought that begins and does not end takes the rest of the text with it; one that only ends, what is before it.
    """
    if channels := list(_CHANNEL.finditer(text)):
        last = channels[-1]
        text = text[last.end() :] if last[1] == "final" else text[: channels[0].start()]
    for announced in (_BARE_CHANNELS, _ANNOUNCED):
        text = announced.sub("", text, count=1)
    kept, at = "", 0
    while opened := _OPENED.search(text, at):
        closed = _CLOSED.search(text, opened.end())
        kept += text[at : opened.start()]
        at = closed.end() if closed else len(text)
    kept += text[at:]
    closes = list(_CLOSED.finditer(kept))
    return kept[closes[-1].end() :] if closes else kept


def json_objects(text: str) -> list[object]:
    """Return the JSON objects and lists in `text` that hold attributes, in their order."""
    return [value for value in _values(text) if _pairs_of(value) is not None]


def first_turn(text: str) -> str:
    """Return `text` up to the first token, after some text, that ends the model's turn or begins another one."""
    text = _HEADER.sub("", text)
    for token in SPECIAL_TOKEN.finditer(text):
        if _ENDS_TURN.search(token[0]) and SPECIAL_TOKEN.sub("", text[: token.start()]).strip():
            return text[: token.start()]
    return text


def _pairs_in(text: str) -> list[tuple[str, str]] | None:
    """Return the pairs of the JSON in `text`; None when there is none, or more than one that differ."""
    stripped = text.strip()
    if stripped[:1] in ("[", "{") and _end_of(stripped, 0) == 0 and "'" not in stripped:  # cut off
        return None
    if stripped[:1] == '"':  # JSON's text, with attributes in it
        try:
            return _pairs_in_text(json.loads(stripped))
        except (ValueError, RecursionError):
            return None
    for place in ("\n".join(_FENCE.findall(text)), text):
        values = list(_values(place))
        found = [pairs for value in values if (pairs := _pairs_of(value)) is not None]
        if not found or any(isinstance(value, _Object) and _is_error(value) for value in values):
            continue
        if all(pairs == found[0] for pairs in found):
            return found[0]
        if all(len(pairs) == 1 for pairs in found):  # an object a line
            return [pair for pairs in found for pair in pairs]
    return None


def _values(text: str) -> Iterator[Any]:
    """Yield the outermost objects and lists that can be read in `text`, strictly or as people and Python write them."""
    decoder = json.JSONDecoder(object_pairs_hook=_Object, strict=False)
    at = tries = 0
    while (begin := _BRACKET.search(text, at)) and tries < MOST_TRIES:
        tries += 1
        try:
            value, at = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            end = _end_of(text, begin.start())
            try:
                value = _lenient(text[begin.start() : end])
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                at = begin.start() + 1
                continue
            at = end
        yield value


def _end_of(text: str, begin: int) -> int:
    """Return where the bracket at `begin` is closed, brackets counted outside of quotes; `begin` if nowhere."""
    depth, quote, before = 0, "", ""
    for at in range(begin, len(text)):
        char = text[at]
        if quote:
            if char == quote and text[at - 1] != "\\":
                quote = ""
        elif char == '"' or (char == "'" and before in "{[,:"):  # not an apostrophe
            quote = char
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth == 0:
                return at + 1
        before = before if char.isspace() else char
    return begin


def _lenient(text: str) -> Any:
    """Return a Python literal, or JSON with single or typographic quotes or commas too many. Raises what
    `ast.parse` does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            tree = ast.parse(text, mode="eval")
        except SyntaxError:
            tree = ast.parse(text.translate(_QUOTES), mode="eval")
    return _literal(tree.body)


def _literal(node: ast.expr | None) -> Any:
    if isinstance(node, ast.Dict):
        items = [(_literal(key), _literal(value)) for key, value in zip(node.keys, node.values, strict=True)]
        return _Object([(str(key), value) for key, value in items])
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(part) for part in node.elts]
    if isinstance(node, ast.Constant) and not isinstance(node.value, bytes | complex):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _literal(node.operand)
        if isinstance(number, int | float):
            return -number
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    raise ValueError("no literal")


def _pairs_of(value: Any, depth: int = DEEPEST) -> list[tuple[str, str]] | None:
    """Return keys and values of what was read; an empty value is one that was not seen. None: it holds no
    attributes.
    """
    if depth == 0:
        return None
    if isinstance(value, list):
        return _pairs_of_list(value, depth)
    if not isinstance(value, _Object) or _is_error(value):
        return None
    items = [(key, inner) for key, inner in value.items if not (_plain(key) in _THOUGHTS or _plain(key) in _ERRORS)]
    if (named := _named(items)) is not None:
        return named
    wrapped = [(key, inner) for key, inner in items if _is_wrapper(key) and not _is_value(inner)]
    if len(wrapped) == 1:
        key, inner = wrapped[0]
        found = _pairs_in_text(inner) if isinstance(inner, str) and len(items) == 1 else _pairs_of(inner, depth - 1)
        if found is not None:
            called = {"name"} if _plain(key) in ("arguments", "parameters") else set()  # of a function
            others = [(name, other) for name, other in items if name != key and _plain(name) not in _META | called]
            beside = _written(others)
            return None if beside is None else beside + found
    return _written(items)


def _pairs_of_list(values: list[Any], depth: int) -> list[tuple[str, str]] | None:
    found: list[tuple[str, str]] = []
    for value in values:
        if isinstance(value, str):
            pairs = _pairs_in_text(value)
        elif isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
            pairs = _written([(value[0], value[1])])
        else:
            pairs = None if isinstance(value, list) else _pairs_of(value, depth - 1)
        if pairs is None:
            return None
        found += pairs
    return found if values else None


def _pairs_in_text(text: object) -> list[tuple[str, str]] | None:
    """Return the pairs of a string inside of JSON: attribute text, or JSON once more."""
    if not isinstance(text, str):
        return None
    if text.strip()[:1] in ("{", "["):
        return _pairs_in(text)
    try:
        return list(parse_attributes(text, max_pairs=len(text)).items())
    except InvalidAttributes:
        return None


def _named(items: list[tuple[str, Any]]) -> list[tuple[str, str]] | None:
    """Return the pair of an object such as {"key": "color", "value": "navy"}."""
    parts = {_plain(key): value for key, value in items}
    keys, values = parts.keys() & _KEYS, parts.keys() & _VALUES
    if len(keys) != 1 or len(values) != 1 or parts.keys() - keys - values - _BESIDE - {"unit"}:
        return None
    key, value = parts[keys.pop()], parts[values.pop()]
    unit = parts.get("unit")
    if not isinstance(key, str):
        return None
    return _written([(key, f"{value} {unit}" if unit and isinstance(value, str | int | float) else value)])


def _written(items: list[tuple[str, Any]]) -> list[tuple[str, str]] | None:
    written = [(_clean(key), _value_text(value)) for key, value in items]
    if any(value is None or (value and not key) for key, value in written):
        return None
    return [(key, value or "") for key, value in written]


def _value_text(value: object) -> str | None:
    """Return a value as attribute text holds it; None when that can't be done."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        parts = [_value_text(part) for part in value if not isinstance(part, list)]
        if len(parts) < len(value) or any(part is None for part in parts):
            return None
        return ", ".join(part for part in parts if part)
    if isinstance(value, _Object):
        parts_of = {_plain(key): inner for key, inner in value.items}
        names = parts_of.keys() & _VALUES
        if len(names) == 1 and not parts_of.keys() - names - _BESIDE:
            return _value_text(parts_of[names.pop()])
        if len(value.items) == 1 and _LANGUAGE.fullmatch(value.items[0][0]):
            return _value_text(value.items[0][1])
        return None
    return _clean(str(value)) if isinstance(value, str | int | float) else None


def _is_value(value: object) -> bool:
    """Check whether an object stands for one value."""
    return isinstance(value, _Object) and _value_text(value) is not None


def _clean(text: str) -> str:
    return clean_value(SPECIAL_TOKEN.sub(" ", first_turn(text)))


def _is_error(value: _Object) -> bool:
    return any(_plain(key) in _ERRORS and inner for key, inner in value.items)


def _is_wrapper(key: str) -> bool:
    return _plain(key) in _WRAPPERS or re.search(r"att?ribut", key, re.IGNORECASE) is not None


def _plain(key: str) -> str:
    return re.sub(r"[\s_-]+", "", key).casefold()
