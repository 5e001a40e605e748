"""Which generator the settings mean: a local model, or a server's; and which kind of model embeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..attributes.answers import attribute_text
from ..attributes.request import Generator
from ..errors import ModelError, UsageError
from ..listener import Listener
from ..section import EndpointSettings
from ..settings import EmbedSettings, ModelSettings, Settings
from ..store.checkpoints import Checkpoints, Role
from .families import FAMILIES
from .presets import LIGHT, NANO, PICTURE_MODELS, base_name, embed_template, local_folder, model_id, read_json
from .templates import PLAIN, Template

if TYPE_CHECKING:
    from ..workspace import Workspace
    from .base import Bases
    from .embed_input import Encoder

EmbedderKind = Literal["qwen", "light", "pictures", "sentences", "vision"]


def generator_id(settings: Settings, checkpoints: Checkpoints, listener: Listener | None = None) -> str:
    """Return the id under which this generator's answers are stored; nothing is loaded and no server is called."""
    if settings.attributes.endpoint:
        from .endpoint import endpoint_id

        return endpoint_id(settings.attributes, settings.model)
    return model_id(settings.model, "generator", checkpoints, listener)


def load_backend(
    settings: Settings,
    checkpoints: Checkpoints,
    *,
    bases: Bases | None = None,
    listener: Listener | None = None,
    read: Callable[[str], str] = attribute_text,
) -> Generator:
    """Return the generator itself; `read` is what makes an answer of what an endpoint's model wrote. Raises ModelError,
    as `generator.load_generator`, or UsageError at a bad endpoint.
    """
    if settings.attributes.endpoint:
        from .endpoint import Endpoint

        endpoint = Endpoint(settings.attributes, settings.model, read=read, listener=listener)
        if listener is not None:
            listener.note(endpoint.destination)
        return endpoint
    from .generator import load_generator

    return load_generator(settings.model, settings.attributes, checkpoints, bases=bases, listener=listener)


def kind_of_embedder(settings: ModelSettings, listener: Listener | None = None) -> EmbedderKind:
    """Return which kind of model embeds: a trained vision encoder, which goes before the others, a Qwen-VL, `light`, a
    CLIP or SigLIP ("pictures"), or a sentence-transformers model; a hub model that was never here is fetched.
    ModelError when it can't be had.
    """
    if settings.vision_checkpoint:
        return "vision"
    name = base_name(settings, "embedder")
    if name in (LIGHT, NANO):
        return "light" if name == LIGHT else "qwen"
    folder = local_folder(settings, "embedder")
    if folder is None and name.count("/") == 1:
        from ..listener import Silent
        from .download import download

        folder = download(settings, name, settings.embedder_revision, listener or Silent())
    if folder is None or not (folder / "config.json").is_file():
        return "qwen"  # which says what is wrong
    kind = read_json(folder / "config.json").get("model_type")
    if kind in FAMILIES:
        return "qwen"
    if kind in PICTURE_MODELS:
        return "pictures"
    return "sentences" if (folder / "modules.json").is_file() else "qwen"


def reads_photos(settings: Settings, listener: Listener | None = None) -> bool:
    """Tell whether the settings' embedder is shown photos: a sentence-transformers model can't be, and an endpoint not
    with `embed.endpoint_photos = false`.
    """
    if settings.embed.endpoint:
        return settings.embed.endpoint_photos
    return kind_of_embedder(settings.model, listener) != "sentences"


def reads_text(settings: Settings) -> bool:
    """Tell whether the settings' embedder reads texts: a vision encoder does not."""
    return bool(settings.embed.endpoint) or not settings.model.vision_checkpoint


def photos_alone(settings: Settings, what: str) -> UsageError:
    """Return the error of `what`, which asks with words, where a vision encoder embeds."""
    return UsageError(
        f"{what}: model.vision_checkpoint = {settings.model.vision_checkpoint} embeds, and reads photos alone",
        "ask with a photo, or the embedder that reads texts: --set model.vision_checkpoint=",
    )


def embedder_id(settings: ModelSettings, checkpoints: Checkpoints, light: Path, listener: Listener) -> str:
    """Return the id under which vectors of the settings' embedder are stored; `light` is the folder of the fit."""
    kind = kind_of_embedder(settings, listener)
    if kind == "qwen":
        return model_id(settings, "embedder", checkpoints, listener)
    if kind == "vision":
        return model_id(settings, "vision", checkpoints, listener)
    _refuse_checkpoint(settings)
    if kind == "light":
        from .light_fit import light_id

        return light_id(light, settings.embedder_images)
    from .outside import find_model

    return find_model(settings, base_name(settings, "embedder"), listener, settings.embedder_revision)[1]


def embedder_template(settings: ModelSettings, checkpoints: Checkpoints, listener: Listener) -> Template:
    """Return the template whose instructions the settings' embedder gets; plain for one that is no Qwen-VL. ModelError
    when the settings say another one for such a model.
    """
    if kind_of_embedder(settings, listener) == "qwen":
        return embed_template(settings, checkpoints, listener)
    _refuse_template(settings)
    return PLAIN


def load_other_encoder(work: Workspace) -> Encoder:
    """Load an embedder that is no Qwen-VL with its vocabulary. Raises ModelError when it can't be had."""
    settings, listener = work.settings, work.listener
    model = settings.model
    kind = kind_of_embedder(model, listener)
    if kind == "vision":
        return load_vision(work)
    if kind == "light":
        from .base import Cache
        from .light import LightEncoder
        from .light_fit import read_fit

        fit = read_fit(work.folder.light)
        return LightEncoder(fit, settings, Cache(work.folder.cache, settings.cache, listener))
    from .outside import PictureTextEncoder, SentenceEncoder, find_model

    folder, id = find_model(model, base_name(model, "embedder"), listener, model.embedder_revision)
    made = PictureTextEncoder if kind == "pictures" else SentenceEncoder
    return made(folder, id, model, settings.embed.batch_size or 16)


def load_vision(work: Workspace, *, trained: bool = True) -> Encoder:
    """Load the vision encoder that the settings name, or what it began with. Raises ModelError."""
    from .base import Cache
    from .vision_encoder import bare_tower, load_vision_encoder

    settings, cache = work.settings, Cache(work.folder.cache, work.settings.cache, work.listener)
    if not trained:
        return bare_tower(settings, cache, work.listener)
    return load_vision_encoder(settings, work.checkpoints, cache, work.listener)


def check_light(embed: EmbedSettings, model: ModelSettings) -> None:
    """Raise UsageError or ModelError where the settings ask of the preset light what it can't do."""
    if embed.dimensions:
        message = "embed.dimensions: a vector of the preset light has parts side by side, which can't be cut"
        raise UsageError(message, "set it to 0")
    _refuse_checkpoint(model)
    _refuse_template(model)


def check_vision(embed: EmbedSettings, model: ModelSettings) -> None:
    """Raise UsageError where the settings ask of a vision encoder what it can't do."""
    if embed.enrich == "both":
        raise UsageError(
            f"embed.enrich = both: model.vision_checkpoint = {model.vision_checkpoint} embeds, and reads photos alone",
            "set embed.enrich = query or none, or leave model.vision_checkpoint empty",
        )


def _refuse_checkpoint(settings: ModelSettings) -> None:
    if settings.embedder_checkpoint:
        raise ModelError(
            f"model.embedder_checkpoint = {settings.embedder_checkpoint} is of a Qwen-VL, the embedder is "
            f"{base_name(settings, 'embedder')}",
            "leave one of them out",
        )


def _refuse_template(settings: ModelSettings) -> None:
    if settings.embed_template not in ("auto", PLAIN.name):
        name = base_name(settings, "embedder")
        raise ModelError(
            f"{name}: the embed template {settings.embed_template} does not fit: it is no Qwen-VL",
            "leave model.embed_template = auto",
        )


def load_encoder(work: Workspace) -> Encoder:
    """Return what makes the vectors. Raises as `embedder.load_embedder`, and UsageError at a bad endpoint."""
    if work.settings.embed.endpoint:
        from .embedding_endpoint import EmbeddingEndpoint

        endpoint = EmbeddingEndpoint(work.settings)
        work.listener.note(endpoint.destination)
        return endpoint
    if kind_of_embedder(work.settings.model, work.listener) != "qwen":
        return load_other_encoder(work)
    return work.load_embedder()


def server_of(settings: Settings, role: Role) -> EndpointSettings | None:
    """Return the section whose endpoint stands in for the local model of `role`; None where that itself is used."""
    sections: dict[Role, EndpointSettings] = {"generator": settings.attributes, "embedder": settings.embed}
    section = sections.get(role)
    return section if section and section.endpoint else None


def check_trainable(settings: Settings, *roles: Role) -> None:
    """Raise UsageError where one of `roles` is to be trained, or to reward, and stands behind an endpoint."""
    for role in roles:
        if server_of(settings, role):
            name = "attributes" if role == "generator" else "embed"
            raise UsageError(f"{name}.endpoint is set, but only a local {role} can be trained", "leave it empty")
