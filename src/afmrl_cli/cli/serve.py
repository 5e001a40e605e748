"""`afmrl serve`: search as a page and as an interface for programs, on one catalog."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from ..errors import UsageError
from .flags import setting
from .options import Session, in_session, tell_models, warn_of_two_faiss

NEEDED = ("starlette", "uvicorn", "python_multipart")
INSTALL = "python -m pip install 'afmrl-cli[serve]'"


@in_session(
    setting("serve.address", metavar="ADDRESS"),
    setting("serve.port"),
    setting("serve.hosts", "--host", metavar="NAME", repeat=True),
    setting("model.embedder_checkpoint", "--embedder", metavar="CHECKPOINT"),
    setting("serve.beside", metavar="CHECKPOINT"),
    setting("search.k", "-k"),
    setting("search.rerank"),
)
def serve(
    session: Session,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve search on this catalog: a page for people, JSON for programs, the model loaded once.

    Listens on this machine alone; any other --address needs a token in AFMRL_SERVE_TOKEN. New vectors of `afmrl embed`
    are taken over while it runs. Ctrl-C ends it.

    Example: afmrl serve --port 8765; or two checkpoints side by side: --embedder embedder-2 --beside embedder-1
    """
    if missing := next((name for name in NEEDED if find_spec(name) is None), ""):
        raise UsageError(f"serve needs {missing}, which is not installed", INSTALL)
    from ..serve.app import make_app
    from ..serve.guard import Door
    from ..serve.run import bound, link_of, listen, token_for
    from ..serve.service import Service

    tell_models(session, ("embedder",))
    warn_of_two_faiss(session)
    settings, out = session.settings.serve, session.out
    token = token_for(settings)
    with bound(settings.address, settings.port) as opened:
        service = Service(session.work, out.note)
        service.start()
        problem, hint = service.problem
        if problem:
            out.warn(f"{problem}: {hint}")
        door = Door.of(settings.address, settings.hosts, token, int(settings.upload_megabytes * 1_000_000))
        if token and not settings.address.startswith("127."):
            out.warn("the token and all searches go over plain http: put a server with TLS before this one")
        link = link_of(opened)

        def ready() -> None:
            out.document("afmrl.serve/1", {"address": link, "catalog": session.folder.catalog})
            out.text(f"serving {session.folder.catalog.name} at {link} (Ctrl-C ends it)")
            if open_:
                typer.launch(link)

        try:
            listen(make_app(service, door), opened, ready)
        finally:
            service.stop()
    out.note("ended")
