"""An embedder's adapter as something other programs open: the plain PEFT folder, or one for sentence-transformers.

The latter holds the base with the adapter merged in (fp32, no vocabulary head), a tokenizer that ends every text with
the line break that the embedder was trained with, pooling of the last token, and both instructions as prompts. It reads
text: without torchvision sentence-transformers can't prepare pictures for a Qwen-VL.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from tokenizers import Regex, normalizers
from transformers import AutoTokenizer

from ..errors import DataError
from ..settings import EmbedSettings
from ..store.checkpoints import MANIFEST, Checkpoints, Manifest
from ..store.files import writing_folder
from .base import load_base, quiet
from .presets import Base

PLAIN_TOKENIZER = "PreTrainedTokenizerFast"
MODULES = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Normalize", "sentence_transformers.models.Normalize"),
)


def export_peft(manifest: Manifest, checkpoints: Checkpoints, out: Path) -> None:
    """Copy the adapter's files, without our manifest, to the new folder `out`."""
    _refuse_existing(out)
    with writing_folder(out) as folder:
        for file in checkpoints.path(manifest.name).iterdir():
            if file.name != MANIFEST:
                shutil.copyfile(file, folder / file.name)


def export_sentence_transformers(
    manifest: Manifest, base: Base, embed: EmbedSettings, checkpoints: Checkpoints, out: Path
) -> None:
    """Write the new folder `out` for `sentence_transformers.SentenceTransformer(out)`.

    `model.encode(texts, prompt_name="query")` or "document" then gives what `Embedder.encode` gives with the query or
    target instruction, for texts of up to `model.max_text_tokens` tokens. Needs memory for the base in fp32.
    `base` is the one that it was trained on (`presets.resolve_adapter`). DataError when `out` exists.
    """
    _refuse_existing(out)
    model = load_base(base, "fp32", "cpu")
    with quiet():
        merged: Any = PeftModel.from_pretrained(model, str(checkpoints.path(manifest.name))).merge_and_unload()
        tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True, padding_side="left")
    tokenizer.chat_template = None  # with one, texts would be wrapped into turns
    _end_texts(tokenizer, base.family.embed_end)
    width = int(merged.config.get_text_config().hidden_size)
    with writing_folder(out) as folder:
        with quiet():
            merged.model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        open_as_it_is(folder / "tokenizer_config.json")
        before = base.family.embed_template.partition("{text}")[0]
        given = {"query": embed.query_instruction, "document": embed.target_instruction}
        prompts = {name: before.format(images="", instruction=instruction) for name, instruction in given.items()}
        write_modules(folder, width, prompts)
        card = checkpoints.path(manifest.name) / "README.md"
        if card.is_file():
            shutil.copyfile(card, folder / card.name)


def _end_texts(tokenizer: Any, end: str) -> None:
    """Make `tokenizer` take the blanks off a text's end and write `end` there."""
    inner = tokenizer.backend_tokenizer
    own = [inner.normalizer] if inner.normalizer is not None else []
    ending = [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(r"\z"), end)]
    inner.normalizer = normalizers.Sequence([*own, *ending])


def write_modules(folder: Path, width: int, prompts: dict[str, str]) -> None:
    """Write the small files by which sentence-transformers knows what to do: last token of `width` numbers, divided by
    its length, texts with `prompts` before them.
    """
    _write(folder / "modules.json", [_module(i, path, kind) for i, (path, kind) in enumerate(MODULES)])
    _write(folder / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": False})
    pooling = {"word_embedding_dimension": width, "pooling_mode_lasttoken": True, "include_prompt": True}
    (folder / "1_Pooling").mkdir()
    (folder / "2_Normalize").mkdir()
    _write(folder / "1_Pooling" / "config.json", pooling | {"pooling_mode_mean_tokens": False})
    about = {"prompts": prompts, "default_prompt_name": "document", "similarity_fn_name": "cosine"}
    _write(folder / "config_sentence_transformers.json", about)


def open_as_it_is(file: Path) -> None:
    """Name the class that takes tokenizer.json as it is, for tokenizer and processor: by the model's type a
    stock AutoProcessor would expect pictures' settings, and Qwen's own tokenizer class would build one without
    our line break.
    """
    content = json.loads(file.read_text("utf-8"))
    _write(file, content | {"tokenizer_class": PLAIN_TOKENIZER, "processor_class": PLAIN_TOKENIZER})


def _module(number: int, path: str, kind: str) -> dict[str, object]:
    return {"idx": number, "name": str(number), "path": path, "type": kind}


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise DataError(f"{out}: is there already", "name a folder that does not exist yet")
