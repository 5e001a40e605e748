"""Settings as a whole: the page of them, keys of earlier versions, and that keys of runs outlive them."""

from __future__ import annotations

from pathlib import Path

import pytest

from afmrl_cli.errors import UsageError
from afmrl_cli.reference import field_of, known_keys, rewritten
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_as_written, load_settings
from afmrl_cli.training_settings import AgclSettings
from tests import NANO

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_of_all_settings_is_what_is_generated() -> None:
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page), "run: python -m afmrl_cli.reference docs/settings.md"


@pytest.mark.parametrize("key", known_keys())
def test_each_setting_is_described_in_a_sentence(key: str) -> None:
    description = field_of(key).description or ""
    assert description.endswith((".", "...")) and len(description) < 180


@pytest.mark.parametrize(
    ("toml", "flags", "environment", "message", "hint"),
    [
        ("[eval]\nask = 'text'", {}, {}, "afmrl.toml: eval.ask is eval.query_fields now", "rename it"),
        ("[agcl]\nweight_positive = true", {}, {}, "agcl.weight_positive is agcl.weights now", '"paper" for true'),
        ("", {"eval.show": "text"}, {}, "--set: eval.show is eval.gallery_fields now", "rename it"),
        ("[agcl]\nclip = 2", {}, {}, "agcl.clip is no setting any more: it is always 1.0", "remove it"),
        ("", {}, {"AFMRL_RAR_UPDATES": "2"}, "AFMRL_RAR_UPDATES: rar.updates is no setting any more", "remove it"),
        ("", {"rar.shared_prefix": "false"}, {}, "it is always true", "remove it"),
        ("[agcl.clip]\na = 1", {}, {}, "unknown setting agcl.clip", "agcl."),
        ("[agcl]\nclip = 1", {"agcl": "3"}, {}, "--set agcl: must be a table", "afmrl config"),
        ("embed = 3", {}, {"AFMRL_EMBED_ENRICH": "both"}, "AFMRL_EMBED_ENRICH: unknown setting", "embed.enrich"),
    ],
)
def test_keys_of_earlier_versions_name_what_holds_now(
    tmp_path: Path, toml: str, flags: dict[str, object], environment: dict[str, str], message: str, hint: str
) -> None:
    (tmp_path / "afmrl.toml").write_text(toml)
    with pytest.raises(UsageError) as raised:
        load_settings(tmp_path, flags, environment)
    assert message in str(raised.value) and hint in raised.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("agcl.clip", 1),
        ("agcl.clip", "1.0"),
        ("rar.shared_prefix", "True"),
        ("sft.schedule", "linear"),
        ("rar.eta", -0.1),
    ],
)
def test_a_key_that_says_what_is_fixed_now_is_ignored_with_a_note(key: str, value: object) -> None:
    loaded = load_as_written(None, {key: value}, NANO)
    assert loaded.settings == load_as_written(None, {}, NANO).settings
    [note] = loaded.notes
    assert f"{key} is no setting any more" in note and note.endswith("leave it out"), "a flag has no line"


def test_the_one_number_of_photos_is_taken_for_both_models() -> None:
    loaded = load_as_written(None, {"model.max_images": "2", "model.embedder_images": "1"}, NANO)
    assert (loaded.settings.model.generator_images, loaded.settings.model.embedder_images) == (2, 1)
    assert loaded.notes[0].startswith("--set: model.max_images is taken for"), "the key once"


def test_constants_are_written_where_settings_are_so_that_keys_of_runs_stay() -> None:
    """The keys of runs are hashes of these; what was a setting at its default counts as before."""
    agcl = AgclSettings().model_dump(exclude={"name", "clip"})
    assert agcl["bm25_tokens"] == "values" and agcl["mask_margin"] == 0.1 and "clip" not in agcl
    assert Settings().model_dump()["rar"]["lora_dropout"] == 0.0
    assert Settings().model_dump(mode="json")["eval"]["confidence"] == 0.95
