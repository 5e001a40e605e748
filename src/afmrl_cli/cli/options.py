"""How a command starts: settings, the catalog's folder and output."""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import DataError, UsageError
from ..store.folder import CatalogFolder, check_output, find_folder, keep_catalog
from ..workspace import Workspace
from .flags import Call, Command, SettingFlag, Where, with_flags
from .output import Output

if TYPE_CHECKING:
    from ..engine.ray_data import Engine
    from ..settings import Settings
    from ..store.checkpoints import Role

PAGE_SUFFIXES = (".html", ".htm")
SMALL_CATALOG = 4_000_000
"""Bytes: a larger file holds more rows than the shares of a split depend on, whatever its columns."""


@dataclass(frozen=True)
class Session:
    """What a command works with: `work`, where results are written, and which settings a flag has set."""

    work: Workspace
    out: Output
    flags: frozenset[str]

    @property
    def settings(self) -> Settings:
        """Return the settings as resolved for this catalog."""
        return self.work.settings

    @property
    def folder(self) -> CatalogFolder:
        """Return the catalog's folder."""
        return self.work.folder


def in_session(
    *flags: SettingFlag, catalog: Where = "argument", roles: tuple[Role, ...] = (), writes: bool = False
) -> Callable[[Command], Command]:
    """Return a decorator for a command whose first parameter is a Session: adds the shared flags and `flags`.

    `roles` are the models that the command runs: a warning where the built-in one is of no use for this catalog. A
    command that `writes` keeps the catalog in its store, but for a dry run.
    """

    def decorate(command: Command) -> Command:
        """Return the command as one that starts its own session."""

        @with_flags(*flags, catalog=catalog)
        @functools.wraps(command)
        def run(call: Call, **own: Any) -> None:
            """Start a session and run the command in it."""
            session = start(call)
            tell_models(session, roles)
            if writes and not own.get("dry_run"):
                keep_catalog(session.folder)
            command(session, **own)

        return run

    return decorate


def start(call: Call) -> Session:
    """Find the catalog's folder and resolve the settings. Raises DataError and UsageError."""
    from ..by_model import with_values_by_model
    from ..models.auto import choose_preset
    from ..sources import load_as_written

    folder = find_folder(
        call.catalog, lambda root: load_as_written(root, call.chosen, names=call.names).settings.catalog.path
    )
    loaded = load_as_written(folder.root, call.chosen, names=call.names)
    for note in loaded.notes:
        call.out.note(note)
    chosen = choose_preset(loaded.settings, folder)
    if chosen.why:
        call.out.preset = {"name": chosen.settings.model.preset, "why": chosen.why}
    settings = with_split_shares(with_values_by_model(chosen.settings), folder)
    return Session(Workspace(folder, settings, call.out), call.out, frozenset(call.chosen))


def tell_models(session: Session, roles: tuple[Role, ...]) -> None:
    """Say what `model.preset = auto` came to where it decides a model of `roles`, and warn where the built-in one is to
    run on a catalog that it is of no use for.
    """
    from ..catalog.rendered import built_in_warning
    from ..models.auto import Chosen, open_roles

    if (preset := session.out.preset) and open_roles(session.settings, roles):
        session.out.note(Chosen(session.settings, preset["why"]).line)
    if roles and (warning := built_in_warning(session.folder, session.settings, roles)):
        session.out.warn(warning)


def tell_embedder(session: Session, *others: Role) -> None:
    """Say the same of what embeds, and of the models of `others`; and of two that are named, which one it is."""
    model = session.settings.model
    tell_models(session, (*others, "vision" if model.vision_checkpoint else "embedder"))
    if model.vision_checkpoint and model.embedder_checkpoint:
        session.out.note(
            f"model.vision_checkpoint = {model.vision_checkpoint} embeds, by photos alone; the embedder "
            f"{model.embedder_checkpoint} does with --set model.vision_checkpoint="
        )


def engine_of(engine: str | None, address: str, workers: int | None, **without: object) -> Engine | None:
    """Return what --engine says, None where it is not there. UsageError for another engine than ray, for its flags
    without it, and for those flags `without` which it runs.
    """
    if engine is None:
        if address or workers:
            raise UsageError(f"--{'address' if address else 'workers'} goes with --engine", "add --engine ray")
        return None
    if engine != "ray":
        raise UsageError(f"--engine {engine[:40]}: there is no such engine", "it is called ray")
    if given := [f"--{name.replace('_', '-')}" for name, value in without.items() if value]:
        raise UsageError(f"--engine goes without {given[0]}", "run it without --engine")
    from ..engine.ray_data import Engine

    return Engine(address, workers)


def check_page(html: Path, folder: CatalogFolder) -> None:
    """Raise UsageError where `--html` names no page, or as `check_output`."""
    if html.suffix.lower() not in PAGE_SUFFIXES:
        raise UsageError(f"--html {html}: the name must end in {' or '.join(PAGE_SUFFIXES)}", "it is a web page")
    check_output(html, folder, "--html")


def warn_of_two_faiss(session: Session) -> None:
    """Warn when faiss-cpu and faiss-gpu are both installed: which of them is imported is then a matter of luck."""
    from ..retrieval.faiss_install import faiss_conflict

    if conflict := faiss_conflict():
        session.out.warn(f"{conflict.message}: {' && '.join(conflict.commands)}")


def warn_of_plain_http(session: Session, address: str) -> None:
    """Warn before the key goes to the endpoint `address` where others can read it."""
    if is_plain_and_far(address) and os.environ.get("AFMRL_API_KEY"):
        session.out.warn("the key in AFMRL_API_KEY goes over plain http to another machine: use https where you can")


def is_plain_and_far(address: str) -> bool:
    """Tell whether what is sent to `address` leaves this machine in the clear."""
    try:
        parts = urlsplit(address.strip())
        host = parts.hostname or ""
    except ValueError:
        return False  # no address: refused where it is used
    if parts.scheme != "http" or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # a name


def with_split_shares(settings: Settings, folder: CatalogFolder) -> Settings:
    """Resolve the shares of the split by the size of the catalog; a large file is not read for that. A bucket out of
    reach is an error of the commands that read it: a search in an index does not.
    """
    from ..catalog.read import count_rows
    from ..catalog.splits import SHARES, with_shares
    from ..store.source import is_address, state_of

    rows = SHARES[-1][0]
    try:
        if state_of(folder.catalog)[0] <= SMALL_CATALOG:
            rows = count_rows(folder, settings.catalog)
    except DataError:
        if not is_address(folder.catalog):
            raise
    return settings.model_copy(update={"split": with_shares(settings.split, rows)})
