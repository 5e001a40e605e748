"""The flags of the commands: those that every command shares, and those that stand for a key of `afmrl.toml`.

A flag that sets a setting takes its type and its help from the setting's field, so that both stand once:

    @with_flags(setting("embed.batch_size"), setting("search.k", "-k"))
    def command(call: Call, force: Force = False) -> None: ...

`command` gets what the shared flags and the settings' flags said as its first argument, its own flags as the others.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from ..errors import UsageError
from .output import Output

CATALOG_HELP = "Catalog file or its folder; by default the current folder."
CATALOG: dict[str, Any] = {
    "argument": Annotated[Path | None, typer.Argument(help=CATALOG_HELP, show_default=False)],
    "option": Annotated[Path | None, typer.Option("--catalog", "-c", help=CATALOG_HELP)],
}
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More detail on standard error.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as --set embed.batch_size=8. Repeatable."),
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only the I-th of N parts, from 0/N on; `afmrl merge` joins them."),
]
EngineOption = Annotated[
    str | None, typer.Option("--engine", metavar="ray", help="Divide the work over actors of Ray, and merge it.")
]
AddressOption = Annotated[
    str,
    typer.Option(metavar="HOST:PORT", help="Of a Ray cluster; else --engine starts one here.", show_default=False),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Of --engine, with a model each; by default one a GPU, or one for 4 cores."),
]
SHARED: dict[str, tuple[Any, Any]] = {
    "json_mode": (Json, False),
    "quiet": (Quiet, False),
    "verbose": (Verbose, False),
    "set_": (Set, None),
}
MOST_SHOWN = 26
"""Columns of a flag's allowed words beside it; with more they follow its help."""
SETTINGS_PANEL = "Settings (keys of afmrl.toml)"

Where = Literal["argument", "option", "nowhere"]
"""How a command takes the catalog."""
Command = Callable[..., None]


@dataclass(frozen=True)
class Call:
    """What the shared flags and the flags of settings said."""

    catalog: Path | None
    out: Output
    chosen: dict[str, object]
    """Values by the settings' dotted keys; a command's own flag wins over --set."""
    names: dict[str, str]
    """How the flags that were given spell what they set: {"search.k": "-k"}."""


@dataclass(frozen=True)
class SettingFlag:
    """A flag that sets the setting `key`; `setting` makes it."""

    key: str
    names: tuple[str, ...]
    metavar: str | None
    repeat: bool
    from_here: bool

    @property
    def parameter(self) -> str:
        """Return the name of the function's parameter."""
        return self.key.replace(".", "_")

    @property
    def spelled(self) -> str:
        """Return the flag's name in messages."""
        return self.names[0].partition("/")[0]

    def value(self, said: Any) -> object:
        """Return what the setting takes for what was said; None where nothing was."""
        # Typer says "not given" of a repeatable flag by an empty list.
        if said is None or said == []:
            return None
        return [str(Path(each).absolute()) for each in said] if self.from_here else said

    def annotation(self) -> object:
        """Return the parameter's type with what Typer needs to know, from the setting's field."""
        from ..reference import field_of  # pydantic costs a third of `afmrl --help`

        field = field_of(self.key)
        kind, choices = _kind(field.annotation, self.repeat)
        shown = "|".join(choices) if len("|".join(choices)) <= MOST_SHOWN else "NAME"
        words = [field.description, "Repeatable." * self.repeat, f"One of {', '.join(choices)}." * (shown == "NAME")]
        option = typer.Option(
            *self.names,
            help=" ".join(filter(None, words)),
            metavar=self.metavar or shown or None,
            autocompletion=(lambda: choices) if choices else None,
            show_default=False,
            rich_help_panel=SETTINGS_PANEL,
        )
        return Annotated[kind | None, option]


def setting(
    key: str, *names: str, metavar: str | None = None, repeat: bool = False, from_here: bool = False
) -> SettingFlag:
    """Return the flag of a setting, by default --last-part-of-its-key.

    A list is comma-separated; with `repeat` the flag is given once for each of its elements instead. Paths `from_here`
    are relative to the current folder, though in afmrl.toml they are relative to the catalog's folder.
    """
    return SettingFlag(key, names or (f"--{key.rpartition('.')[2].replace('_', '-')}",), metavar, repeat, from_here)


def _kind(annotation: object, repeat: bool) -> tuple[Any, list[str]]:
    """Return the type of a flag's value on the command line, and what it can be if only few words are allowed."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Literal:
        return str, [str(part) for part in parts if part != ""]
    if get_origin(annotation) is list:
        return (list[str] if repeat else str), []
    return (parts[0] if parts else annotation), []


def with_flags(*flags: SettingFlag, catalog: Where = "argument") -> Callable[[Command], Command]:
    """Return a decorator that gives a command the shared flags and `flags`.

    The command's first parameter is a Call; the others are its own flags, as Typer reads them from its signature.
    """

    def decorate(command: Command) -> Command:
        """Return the command with the flags in its signature."""
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        shared = {"catalog": (CATALOG[catalog], None), **SHARED} if catalog in CATALOG else SHARED
        added = {flag.parameter: (flag.annotation(), None) for flag in flags} | shared

        @functools.wraps(command)
        def run(**given: Any) -> None:
            """Run the command with what the flags said."""
            said = {name: given.pop(name) for name in added if name in given}
            out = Output(**{name: said.get(name, False) for name in ("json_mode", "quiet", "verbose")})
            values = {flag: value for flag in flags if (value := flag.value(said.get(flag.parameter))) is not None}
            chosen = _chosen(said.get("set_")) | {flag.key: value for flag, value in values.items()}
            command(Call(said.get("catalog"), out, chosen, {flag.key: flag.spelled for flag in values}), **given)

        every = own + [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in added.items()
        ]
        run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
        return run

    return decorate


def _chosen(pairs: list[str] | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {pair}: not of the form KEY=VALUE", "for example --set embed.batch_size=8")
        found[key.strip()] = value.strip()
    return found
