"""An embedder's adapter as something other programs open: the plain PEFT folder, or one for sentence-transformers.

The latter holds the base with the adapter merged in (fp32, no vocabulary head), a tokenizer that ends every text as the
embedder's template does, pooling of the last token, and what the template writes before a text, with either
instruction, as prompts. It reads text: without torchvision sentence-transformers can't prepare pictures for a Qwen-VL.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from peft import PeftModel
from tokenizers import Regex, normalizers, processors
from transformers import AutoTokenizer

from ..errors import DataError
from ..settings import EmbedSettings
from ..store.checkpoints import CONFIG, MANIFEST, QUERY_WEIGHTS, WEIGHTS, Checkpoints, Manifest
from ..store.files import writing_folder
from .base import load_base, quiet
from .presets import Base
from .processor import load_processor
from .templates import Template, fit_template, with_instructions

GALLERY, QUERY = "gallery", "query"
"""The folders of a two-sided checkpoint's sides."""
CARD = "README.md"
PLAIN_TOKENIZER = "PreTrainedTokenizerFast"
MODULES = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Normalize", "sentence_transformers.models.Normalize"),
)


def export_peft(manifest: Manifest, checkpoints: Checkpoints, out: Path) -> None:
    """Copy the adapter's files, without our manifest, to the new folder `out`. Of a two-sided checkpoint `out` itself
    is the gallery adapter and its folder `query` the query adapter, as PEFT saves several.
    """
    refuse_existing(out)
    own = checkpoints.path(manifest.name)
    with writing_folder(out) as folder:
        for file in own.iterdir():
            if file.name not in (MANIFEST, QUERY_WEIGHTS):
                shutil.copyfile(file, folder / file.name)
        if manifest.two_sided:
            _copy_query_adapter(own, folder / QUERY)


def _copy_query_adapter(own: Path, folder: Path) -> Path:
    """Write the query adapter of the checkpoint in `own` as a PEFT folder of its own."""
    folder.mkdir()
    shutil.copyfile(own / QUERY_WEIGHTS, folder / WEIGHTS)
    shutil.copyfile(own / CONFIG, folder / CONFIG)
    return folder


def export_sentence_transformers(
    manifest: Manifest, base: Base, template: Template, embed: EmbedSettings, checkpoints: Checkpoints, out: Path
) -> None:
    """Write the new folder `out` for `sentence_transformers.SentenceTransformer(out)`.

    `model.encode(texts, prompt_name="query")` or "document" then gives what `Embedder.encode` gives with the query or
    target instruction, for texts of up to `model.max_text_tokens` tokens. Needs memory for the base in fp32. Of a
    two-sided checkpoint there are two such folders, `out`/gallery and `out`/query, one for each adapter.

    `base` and `template` are those that it was trained on (`presets.embed_template`). DataError when `out` exists,
    ModelError when the template does not fit the base.
    """
    refuse_existing(out)
    fit_template(template, load_processor(base), base.name)
    embed, own = with_instructions(embed, template), checkpoints.path(manifest.name)
    with writing_folder(out) as folder, tempfile.TemporaryDirectory() as place:
        adapters = {folder: own}
        if manifest.two_sided:
            adapters = {folder / GALLERY: own, folder / QUERY: _copy_query_adapter(own, Path(place) / QUERY)}
        for side, adapter in adapters.items():
            side.mkdir(exist_ok=True)
            _write_model(side, adapter, base, template, embed)
            if (own / CARD).is_file():
                shutil.copyfile(own / CARD, side / CARD)


def _write_model(folder: Path, adapter: Path, base: Base, template: Template, embed: EmbedSettings) -> None:
    """Write `base` with the adapter in the folder `adapter` merged in, and what sentence-transformers wants beside
    it.
    """
    model = load_base(base, "fp32", "cpu")
    with quiet():
        merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True, padding_side="left")
    tokenizer.chat_template = None  # with one, texts would be wrapped into turns
    _end_texts(tokenizer, template)
    width = int(merged.config.get_text_config().hidden_size)
    with quiet():
        merged.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    open_as_it_is(folder / "tokenizer_config.json")
    given = {"query": embed.query_instruction, "document": embed.target_instruction}
    write_modules(folder, width, {name: template.opening(instruction) for name, instruction in given.items()})


def _end_texts(tokenizer: Any, template: Template) -> None:
    """Make `tokenizer` end a text as `template` does.

    Plain: blanks at the end are taken off, and what follows is written. Turns: their tokens are added to the text's.
    Normalising sees the piece between two special tokens, so "user" and a line break begin the one that is the text.
    """
    inner = tokenizer.backend_tokenizer
    changes: list[Any] = [inner.normalizer] if inner.normalizer is not None else []
    if template.end_token:
        ids = tokenizer(template.after, add_special_tokens=False)["input_ids"]
        ending = {"id": "END", "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
        inner.post_processor = processors.TemplateProcessing(single="$A END", special_tokens=[ending])
        if template.empty:
            changes.append(normalizers.Replace(Regex(r"\Auser\n\s*\z"), f"user\n{template.empty}"))
    else:
        changes += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(r"\z"), template.after)]
    inner.normalizer = normalizers.Sequence(changes)


def write_modules(folder: Path, width: int, prompts: dict[str, str]) -> None:
    """Write the small files by which sentence-transformers knows what to do: last token of `width` numbers, divided by
    its length, texts with `prompts` before them.
    """
    _write(folder / "modules.json", [_module(i, path, kind) for i, (path, kind) in enumerate(MODULES)])
    _write(folder / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": False})
    pooling = {"embedding_dimension": width, "pooling_mode": "lasttoken", "include_prompt": True}
    (folder / "1_Pooling").mkdir()
    (folder / "2_Normalize").mkdir()
    _write(folder / "1_Pooling" / "config.json", pooling)
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


def refuse_existing(out: Path) -> None:
    """Raise DataError when `out` is there already."""
    if out.exists():
        raise DataError(f"{out}: is there already", "name a folder that does not exist yet")
