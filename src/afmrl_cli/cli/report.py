"""`afmrl report`: what a cycle brought, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Session, in_session


@in_session()
def report(
    session: Session,
    run: Annotated[str, typer.Option("--run", help="Folder of a cycle in .afmrl/runs; by default the latest.")] = "",
) -> None:
    """Write the report of a cycle anew: one HTML file with its stages, and results before and after with pictures.

    Example: afmrl report
    """
    from ..cycle.report import find_cycle, write_report

    with session.out:
        file: Path = write_report(find_cycle(session.folder, run), session.work)
    session.out.document("afmrl.report/1", {"file": file})
    session.out.text(str(file))
