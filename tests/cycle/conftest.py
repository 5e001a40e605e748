"""The unbroken cycle that the tests of this folder compare with and start from."""

from __future__ import annotations

import pytest

from afmrl_cli.cycle.run import CycleSummary
from afmrl_cli.store.folder import CatalogFolder

from .shop import Heard, rendered, run


@pytest.fixture(scope="session")
def heard() -> Heard:
    """What the unbroken cycle has said."""
    return Heard()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> CatalogFolder:
    """A shop of 4 products, too few to train on: copy it before you change one."""
    return rendered(tmp_path_factory.mktemp("small"), 4)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, heard: Heard) -> tuple[CatalogFolder, CycleSummary]:
    """The shop and its unbroken cycle: copy it before you change it."""
    folder = rendered(tmp_path_factory.mktemp("whole"))
    return folder, run(folder, heard)
