"""Lists over very many images, made from a seed, as a person looks at them."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from benchmarks.master.figures import Figure, list_figures
from benchmarks.master.places import settle
from holdfast.base.clock import to_ns
from holdfast.control.access.scope import Scope
from holdfast.control.catalog import ImageLists, WantedImages
from holdfast.control.catalog.rows import CatalogState
from holdfast.control.catalog.schema import clients, copies, images, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.control.database import Database

SEED = 20261121
CLIENTS = 5_000
SOURCES_A_CLIENT = 2
POLICIES = 200
END = datetime(2026, 11, 21, tzinfo=UTC)
DAYS = 100
AT_ONCE = 10_000
PAGE = 100


def fill(database: Database, count: int) -> None:
    """Write the images."""
    with database.write() as connection:
        some = [{"id": number, "name": client(number)} for number in range(1, CLIENTS + 1)]
        connection.execute(sa.insert(clients), some)
        of_clients = [
            {
                "id": number * SOURCES_A_CLIENT + place + 1,
                "client_id": number + 1,
                "name": f"{client(number + 1)}:/data{place}",
                "generation": 0,
            }
            for number in range(CLIENTS)
            for place in range(SOURCES_A_CLIENT)
        ]
        connection.execute(sa.insert(sources), of_clients)
    rows = list(_rows(count))
    for at in range(0, count, AT_ONCE):
        of_pool = {"pool_id": "0" * 32, "recorded_ns": 1}
        some_rows = rows[at : at + AT_ONCE]
        with database.write() as connection:
            connection.execute(sa.insert(images), some_rows)
            connection.execute(
                sa.insert(copies),
                [{"image_id": one["id"], **of_pool} for one in some_rows],
            )


def client(number: int) -> str:
    """The name of a client."""
    return f"{('web', 'db', 'mail', 'vm', 'pc')[number % 5]}{number:04d}"


def _rows(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(SEED)
    step_ns = to_ns(END) - to_ns(END - timedelta(days=DAYS))
    for number in range(count):
        started_ns = to_ns(END) - step_ns // count * (count - number)
        size = rng.randrange(1 << 40)
        yield {
            "id": f"{rng.getrandbits(128):032x}",
            "source_id": number % (CLIENTS * SOURCES_A_CLIENT) + 1,
            "number": number + 1,
            "started_ns": started_ns,
            "finished_ns": started_ns + rng.randrange(10**12),
            "files": rng.randrange(10**6),
            "size_bytes": size,
            "online_bytes": size // 10,
            "new_bytes": size // 20,
            "transmitted_bytes": size // 30,
            "findings": 0,
            "status": "completed",
            "software": "holdfast benchmark",
            "policy": f"policy{number % POLICIES:03d}",
            "schedule": "nightly",
            "backup_kind": "differential",
            "catalog_state": CatalogState.INDEXED.value,
        }


def questions(lists: ImageLists, rng: random.Random) -> dict[str, Callable[[], object]]:
    """Every list of images, sources and clients."""

    def ask(*, after: bool = False, **wanted: Any) -> object:
        place = (to_ns(END - timedelta(days=rng.randrange(DAYS))), "f" * 32) if after else None
        return lists.images(WantedImages(**wanted), limit=PAGE, after=place)

    def some_client() -> str:
        return client(rng.randrange(1, CLIENTS + 1))

    def a_day() -> dict[str, Any]:
        since = END - timedelta(days=rng.randrange(1, DAYS))
        return {"since": since, "until": since + timedelta(days=1)}

    def policy() -> str:
        return f"policy{rng.randrange(POLICIES):03d}"

    def seen(*globs: str) -> dict[str, Any]:
        scope = Scope.of(globs)
        return {"visible": scope.condition}

    many, few = seen("web*", "db*"), seen("web1230", "mail0042")
    return {
        "images, newest first": ask,
        "images, a page in the middle": lambda: ask(after=True),
        "images of a client": lambda: ask(client=some_client()),
        "images of a source": lambda: ask(source=f"{some_client()}:/data0"),
        "images of a source nobody knows": lambda: ask(source="nobody:/"),
        "images of a policy": lambda: ask(policy=policy()),
        "images of a policy, a page in the middle": lambda: ask(after=True, policy=policy()),
        "images of a policy on one client": lambda: ask(policy=policy(), client=some_client()),
        "images of a day": lambda: ask(**a_day()),
        "images of a client on a day": lambda: ask(client=some_client(), **a_day()),
        "images, of two in five clients": lambda: ask(**many),
        "images, of two clients": lambda: ask(**few),
        "clients": lambda: lists.clients(limit=PAGE),
        "clients, of two in five": lambda: lists.clients(many["visible"], limit=PAGE),
        "sources": lambda: lists.sources(limit=PAGE),
        "sources, a page in the middle": lambda: lists.sources(limit=PAGE, after=some_client()),
        "sources of a client": lambda: lists.sources(some_client(), limit=PAGE),
        "sources, of two in five clients": lambda: lists.sources(None, many["visible"], limit=PAGE),
    }


def figures(kind: str, database: Database, count: int, rounds: int) -> list[Figure]:
    """Ask everything of a site with so many images."""
    fill(database, count)
    settle(database)
    part = f"{kind}: lists over {count:,} images of {CLIENTS:,} clients"
    return list_figures(part, questions(ImageLists(database), random.Random(SEED)), rounds)
