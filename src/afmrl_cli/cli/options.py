"""The flags that every command shares, and how a command starts: settings, catalog folder and output."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..store.folder import CatalogFolder, find_folder, keep_catalog
from ..workspace import Workspace
from .output import Output

if TYPE_CHECKING:
    from ..catalog.rendered import Role
    from ..settings import Settings

CatalogArgument = Annotated[
    Path | None,
    typer.Argument(help="Catalog file or its folder; by default the folder you stand in.", show_default=False),
]
CatalogOption = Annotated[
    Path | None,
    typer.Option("--catalog", "-c", help="Catalog file or its folder; by default the folder you stand in."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More detail on standard error.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as --set embed.batch_size=8. Repeatable."),
]


SMALL_CATALOG = 4_000_000
"""Bytes: a larger file holds more rows than the shares of a split depend on, whatever its columns."""


@dataclass(frozen=True)
class Session:
    """What a command works with: `work`, and where results are written."""

    work: Workspace
    out: Output

    @property
    def settings(self) -> Settings:
        """The settings as resolved for this catalog."""
        return self.work.settings

    @property
    def folder(self) -> CatalogFolder:
        """The catalog's folder."""
        return self.work.folder


def flags_of(set_: list[str] | None, flags: Mapping[str, object] | None = None) -> dict[str, object]:
    """`--set` pairs and a command's own flags as dotted keys; a command's own flag wins over --set."""
    found: dict[str, object] = {}
    for pair in set_ or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {pair}: not of the form KEY=VALUE", "for example --set embed.batch_size=8")
        found[key.strip()] = value.strip()
    found.update({key: value for key, value in (flags or {}).items() if value is not None})
    return found


running: ContextVar[Callable[..., None] | None] = ContextVar("running", default=None)
"""The command at hand."""


def _flag_names(flags: Mapping[str, object]) -> dict[str, str]:
    """How the command at hand spells the flags that were given: {"search.k": "-k"}."""
    command = running.get()
    parameters = inspect.signature(command, eval_str=True).parameters if command else {}
    given = {key: key.rpartition(".")[2] for key, value in flags.items() if value is not None}
    return {key: _spelled(name, parameters[name].annotation) for key, name in given.items() if name in parameters}


def _spelled(name: str, annotation: object) -> str:
    for option in getattr(annotation, "__metadata__", ()):
        # Inside Annotated, Typer takes the first name for a default.
        names = [getattr(option, "default", None), *(getattr(option, "param_decls", None) or ())]
        if given := [each for each in names if isinstance(each, str) and each.startswith("-")]:
            return given[0]
    return f"--{name.replace('_', '-')}"


def start(
    catalog: Path | None,
    *,
    json_mode: bool,
    quiet: bool,
    verbose: bool,
    set_: list[str] | None = None,
    flags: Mapping[str, object] | None = None,
    roles: tuple[Role, ...] = (),
    writes: bool = False,
) -> Session:
    """Find the catalog's folder, resolve the settings, make the output.

    `roles` are the models that the command runs: a warning where the built-in one is none for this catalog. One that
    `writes` keeps the catalog in its store.
    """
    from ..settings import MAX_IMAGES  # pydantic costs a third of `afmrl --help`
    from ..sources import load_settings, load_with_origins

    chosen, names = flags_of(set_, flags), _flag_names(flags or {})
    folder = find_folder(catalog, lambda root: load_settings(root, chosen, names=names).catalog.path)
    given, origins = load_with_origins(folder.root, chosen, names=names)
    settings = with_split_shares(given, folder)
    out = Output(json_mode=json_mode, quiet=quiet, verbose=verbose)
    if where := origins.get(f"model.{MAX_IMAGES}"):
        out.note(f"{where}: model.max_images is taken for model.generator_images and model.embedder_images")
    session = Session(Workspace(folder, settings, out), out)
    if roles:
        warn_of_built_in(session, roles)
    if writes:
        keep_catalog(folder)
    return session


def warn_of_built_in(session: Session, roles: tuple[Role, ...]) -> None:
    """Say in a line where the built-in model is to do a work that it is of no use for."""
    from ..catalog.rendered import built_in_warning

    if warning := built_in_warning(session.folder, session.settings, roles):
        session.out.warn(warning)


def warn_of_two_faiss(session: Session) -> None:
    """A warning when faiss-cpu and faiss-gpu are both installed: which of them is imported is then a matter of luck."""
    from ..retrieval.faiss_install import faiss_conflict

    if conflict := faiss_conflict():
        session.out.warn(f"{conflict.message}: {' && '.join(conflict.commands)}")


def with_split_shares(settings: Settings, folder: CatalogFolder) -> Settings:
    """Resolve the shares of the split by the size of the catalog; a large file is not read for that."""
    from ..catalog.read import count_rows
    from ..catalog.splits import SHARES, with_shares

    large = folder.catalog.stat().st_size > SMALL_CATALOG
    rows = SHARES[-1][0] if large else count_rows(folder, settings.catalog)
    return settings.model_copy(update={"split": with_shares(settings.split, rows)})


def in_session(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, whose first parameter is a Session, with the flags that every command shares added to its own."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared: dict[str, tuple[Any, Any]] = {
        "catalog": (CatalogOption, None),
        "json_mode": (Json, False),
        "quiet": (Quiet, False),
        "verbose": (Verbose, False),
        "set_": (Set, None),
    }

    @functools.wraps(command)
    def run(**given: Any) -> None:
        """Start a session and run the command in it."""
        session = start(given.pop("catalog"), **{name: given.pop(name) for name in shared if name in given})
        command(session, **given)

    every = own + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in shared.items()
    ]
    run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return run
