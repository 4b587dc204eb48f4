"""A machine run by systemd, with a site, an agent and a media server on it as services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit.services import Services, installed
from tests.kit.systemd_host import systemd_host

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """All three, enabled and at work; each test leaves them so."""
    with systemd_host(tmp_path_factory.mktemp("systemd") / "host") as host:
        yield installed(host)
