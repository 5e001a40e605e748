"""Embed templates: how pictures, instruction and text stand together in what an embedder reads, and what ends it.

    plain                <pictures>instruction text\\n
    qwen3-vl-embedding   <|im_start|>system\\ninstruction<|im_end|>\\n<|im_start|>user\\n<pictures>text<|im_end|>\\n
    gme                  <|im_start|>assistant\\n<|endoftext|>                       (both: the same turns)

The vector is the last token's, so an embedder gives the vectors it was trained for under its own template only.

`plain` is VLM2Vec's (arXiv 2410.05160). The other two are ChatML with an empty turn of the assistant, as the makers of
Qwen3-VL-Embedding (arXiv 2601.04720) and GME (arXiv 2412.16855) have it. Qwen3-VL-Embedding's instructions end with a
full stop, and nothing to read is "NULL" there. A tokenizer that writes the end token by itself, as that model's does,
has it left to it. That it stands at the end, once, is checked when the model is loaded, and so are the turns, the
assistant's too, against the folder's own chat template.

Which one holds: `model.embed_template`; where that is auto, the adapter's own (trained by a version without templates:
plain), else the base's: by its name (NAMES), else by its folder (`_by_folder`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..store.files import parse_json

if TYPE_CHECKING:
    from ..settings import EmbedSettings
    from ..store.checkpoints import Manifest

QUERY_INSTRUCTION = "Find this product:"
TARGET_INSTRUCTION = "Represent this product:"
TURN, END_OF_TURN, END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
BEFORE = f"{TURN}system\n{{instruction}}{END_OF_TURN}\n{TURN}user\n{{images}}"
AFTER = f"{END_OF_TURN}\n{TURN}assistant\n{END}"
ASSISTANT = "You are a helpful assistant."
SHOWN = 80
"""How many characters of what is wrong are shown."""


@dataclass(frozen=True)
class Template:
    """One way to write what the embedder reads; `before` has places for {instruction} and {images}."""

    name: str
    query_instruction: str
    target_instruction: str
    before: str
    after: str
    end_token: str = ""
    """The token whose hidden state is the vector, where that is always the same."""
    full_stop: bool = False
    """Whether an instruction that ends without punctuation gets a full stop."""
    empty: str = ""
    """What stands where there is neither text nor picture."""

    def text(self, images: str, instruction: str, text: str) -> str:
        """Return the string that is tokenised."""
        if not self.end_token:  # blanks at the end are taken off
            return (self.opening(instruction, images) + text).rstrip() + self.after
        return self.opening(instruction, images) + (text if text.strip() or images else self.empty) + self.after

    def opening(self, instruction: str, images: str = "") -> str:
        """Return what stands before the text."""
        return self.before.format(instruction=self.instruction(instruction), images=images)

    def instruction(self, said: str) -> str:
        """Return `said` as it stands in the template: in turns its own, where there is none."""
        if not self.end_token:
            return said
        said = said.strip() or self.target_instruction
        return said if not self.full_stop or unicodedata.category(said[-1]).startswith("P") else f"{said}."


PLAIN = Template("plain", QUERY_INSTRUCTION, TARGET_INSTRUCTION, "{images}{instruction} ", "\n")
QWEN3 = Template(
    "qwen3-vl-embedding",
    "Retrieve images or text relevant to the user's query.",
    "Represent the user's input.",
    BEFORE,
    AFTER,
    END,
    full_stop=True,
    empty="NULL",
)
GME = Template("gme", ASSISTANT, ASSISTANT, BEFORE, AFTER, END)
TEMPLATES = {template.name: template for template in (PLAIN, QWEN3, GME)}
NAMES = ((re.compile(r"qwen3-vl-embedding|^uembed"), QWEN3), (re.compile(r"^gme-qwen2"), GME))
"""Bases that are known by their names, without the account or folder before it, in lower case."""


def template_of(wanted: str, name: str, folder: Path, adapter: Manifest | None) -> Template:
    """Return the template of the base `name` in `folder` with `adapter`, where the settings say `wanted`."""
    if wanted in TEMPLATES:
        return TEMPLATES[wanted]
    if adapter is not None:
        if (own := adapter.embed_template) in TEMPLATES:
            return TEMPLATES[own]
        raise ModelError(f"checkpoint {adapter.name}: unknown embed template {own[:60]!r}", "set model.embed_template")
    return _by_name(name) or _by_folder(folder)


def served_template(name: str) -> Template:
    """Return the template that a server's model `name` is asked under; plain for GME, whose end a server does not
    write.
    """
    return QWEN3 if _by_name(name) is QWEN3 else PLAIN


def _by_name(name: str) -> Template | None:
    last = re.split(r"[\\/]", name.rstrip("\\/"))[-1].lower()
    return next((template for pattern, template in NAMES if pattern.search(last)), None)


def _by_folder(folder: Path) -> Template:
    """Return what the files beside the weights say.

    Whose chat template or prompts have Qwen3-VL-Embedding's instruction is one of those. A folder that is laid out for
    sentence-transformers (modules.json) is an embedder: where its chat template or prompts have turns it reads turns,
    GME where they have its default instruction, else as Qwen3-VL-Embedding; where it has prompts without turns it is
    plain; where it says neither, nobody can tell (ModelError). All others are plain.
    """
    prompts = _read(folder / "config_sentence_transformers.json").get("prompts")
    said = [str(prompt) for prompt in prompts.values()] if isinstance(prompts, dict) else []
    texts = [_chat_template(folder), *said]
    if any(QWEN3.target_instruction.rstrip(".") in text for text in texts):
        return QWEN3
    if not (folder / "modules.json").is_file():
        return PLAIN
    if any(TURN in text for text in texts):
        return GME if any(ASSISTANT in text for text in texts) else QWEN3
    if any(prompt.strip() for prompt in said):
        return PLAIN
    raise ModelError(
        f"{folder}: an embedder (modules.json) without a chat template of turns or prompts: how its input is written "
        "is not known",
        f"say it: --set model.embed_template={'|'.join(TEMPLATES)}, as its makers trained it",
    )


def _chat_template(folder: Path) -> str:
    """Return the folder's chat template, from whichever file has it; "" where there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8", errors="replace")
    contents = (_read(folder / name) for name in ("chat_template.json", "tokenizer_config.json"))
    return next((str(content["chat_template"]) for content in contents if content.get("chat_template")), "")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = parse_json(file.read_text("utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: not readable as JSON: {error}", "fetch or copy the model again") from error
    return content if isinstance(content, dict) else {}


def with_instructions(embed: EmbedSettings, template: Template) -> EmbedSettings:
    """Return `embed` with the template's own instructions where it leaves them open."""
    return embed.model_copy(
        update={
            "query_instruction": embed.query_instruction or template.query_instruction,
            "target_instruction": embed.target_instruction or template.target_instruction,
        }
    )


def fit_template(template: Template, processor: Any, base: str) -> Template:
    """Return `template` as it is written for this `Processor`: without what its tokenizer adds to every text by itself,
    the end token or more of the ending.

    ModelError when the tokens are not the template's, end token once and last, or when the folder's chat template
    writes other turns.
    """
    if not template.end_token:
        return template
    said, hint = f"{base}: the embed template {template.name} does not fit", "choose another model.embed_template"
    tokenizer = processor.tokenizer
    known = tokenizer.get_added_vocab()
    if lacking := [token for token in (TURN, END_OF_TURN, END) if token not in known]:
        raise ModelError(f"{said}: the tokenizer has no token {lacking[0]}", hint)
    sample = template.text(processor.family.image_slot, "Find.", "shirt")
    bare, whole = (tokenizer("x", add_special_tokens=special)["input_ids"] for special in (False, True))
    added = tokenizer.decode(whole[len(bare) :], clean_up_tokenization_spaces=False)
    written = replace(template, after=template.after.removesuffix(added))
    ids = tokenizer(written.text(processor.family.image_slot, "Find.", "shirt"))["input_ids"]
    if ids != tokenizer(sample, add_special_tokens=False)["input_ids"]:
        raise ModelError(f"{said}: the tokenizer makes {tokenizer.decode(whole)[:80]!r} of the text 'x'", hint)
    end = known[template.end_token]
    if ids.count(end) != 1 or ids[-1] != end:
        raise ModelError(f"{said}: the tokenizer does not end a text with {template.end_token}", hint)
    if processor.inner.chat_template and (other := _other_turns(processor.inner, sample)):
        raise ModelError(f"{said}: the folder's own chat template {other}", hint)
    return written


def _other_turns(processor: Any, sample: str) -> str:
    """Say what the chat template writes in place of `fit_template`'s sample, or why it can't; "" where that is the
    same, with the end token or before it.
    """
    user = [{"type": "image"}, {"type": "text", "text": "shirt"}]
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Find."}]},
        {"role": "user", "content": user},
    ]
    try:
        made = str(processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # it is a program of whoever made the folder
        return f"writes no system turn with a picture: {str(error).strip()[:200]}"
    bare = sample.removesuffix(END)
    if made in (sample, bare):
        return ""
    same = next((i for i, char in enumerate(bare) if char != made[i : i + 1]), len(bare))
    where = f" after {made[max(0, same - SHOWN // 2) : same]!r}" if same else ""
    return (f"writes {made[same : same + SHOWN]!r}" if made[same:] else "ends") + where
