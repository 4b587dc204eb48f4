"""Two machines with several cables: all are used, and one that is pulled out is not missed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.engine import Pool, PoolConfig
from tests.kit.network import Cables, cables, can_make_networks, inside
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).parents[3]
SIZE = 40_000_000
RATE = "100mbit"
BYTES_PER_S = 12_500_000

pytestmark = pytest.mark.skipif(
    not can_make_networks(), reason="may not make network namespaces here"
)


class Site:
    """A media server on the far machine, and what the near one does with it."""

    def __init__(self, directory: Path, between: Cables, server: subprocess.Popen[str]) -> None:
        self.directory = directory
        self.between = between
        self._server = server
        said = self._said()
        self.port, self.token = said["port"], said["token"]

    def _said(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        found: dict[str, Any] = json.loads(self._server.stdout.readline())
        return found

    def now(self) -> dict[str, Any]:
        """A token to restore, and who was refused."""
        assert self._server.stdin is not None
        self._server.stdin.write("\n")
        self._server.stdin.flush()
        return self._said()

    def run(
        self,
        *words: str,
        token: str | None = None,
        addresses: tuple[str, ...] = (),
        watch: Callable[[dict[str, int]], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Have the near machine back up or restore; what it says at the end."""
        urls = ",".join(
            f"https://{one}:{self.port}" for one in addresses or self.between.far_addresses
        )
        command = (sys.executable, "-m", "tests.kit.agent_process", str(self.directory))
        agent = subprocess.Popen(
            inside(self.between.near, *command, token or self.token, urls, *words),
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        said: dict[str, Any] = {}
        assert agent.stdout is not None
        for line in agent.stdout:
            said = json.loads(line)
            watch(said["paths"])
        assert agent.wait(60) == 0
        agent.stdout.close()
        return said


@contextmanager
def two_machines(directory: Path, count: int) -> Iterator[Site]:
    Pool.create(str(directory / "pool"), bytes(range(32)), PoolConfig(), 0)
    with cables(count, RATE) as between:
        command = (sys.executable, "-m", "tests.kit.media_process", str(directory), "0.0.0.0")
        server = subprocess.Popen(
            inside(between.far, *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        try:
            yield Site(directory, between, server)
        finally:
            server.communicate(timeout=60)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    for number in range(4):
        (made / f"{number}").write_bytes(random.Random(number).randbytes(SIZE // 4))
    return made


def check(site: Site, tree: Path, image: str) -> None:
    """The pool is sound, nobody was refused, and what comes back is what was there."""
    now = site.now()
    assert now["refused"] == []
    back = site.directory / "back"
    site.run("restore", str(back), image, token=now["token"])
    assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))
    pool = Pool.open(str(site.directory / "pool"), bytes(range(32)))
    assert pool.check(read_data=True).result().problems_total == 0


def test_two_paths_are_used_together(tmp_path: Path, tree: Path) -> None:
    with two_machines(tmp_path, 2) as site:
        said = site.run("backup", str(tree))
        assert min(said["paths"].values()) > SIZE * 0.3
        assert said["took_s"] < SIZE / BYTES_PER_S * 0.8
        check(site, tree, said["image"])


def test_a_path_that_is_cut_costs_seconds_and_no_data(tmp_path: Path, tree: Path) -> None:
    with two_machines(tmp_path, 2) as site:
        cut: list[int] = []

        def watch(paths: dict[str, int]) -> None:
            if not cut and min(paths.values()) >= SIZE // 10:
                site.between.cut(1)
                cut.append(paths[site.between.far_addresses[1]])

        said = site.run("backup", str(tree), watch=watch)
        assert cut
        # All of the rest went the other way, and the dead path was given up within seconds.
        assert said["paths"][site.between.far_addresses[1]] <= cut[0] + SIZE // 4
        assert said["took_s"] < SIZE / BYTES_PER_S + 8
        check(site, tree, said["image"])


def test_a_path_that_comes_back_is_used_again(tmp_path: Path, tree: Path) -> None:
    with two_machines(tmp_path, 2) as site:
        site.between.cut(1)
        second = site.between.far_addresses[1]
        mended: list[bool] = []

        def watch(paths: dict[str, int]) -> None:
            if not mended and sum(paths.values()) > SIZE // 8:
                site.between.mend(1)
                mended.append(paths[second] == 0)

        said = site.run("backup", str(tree), watch=watch)
        assert mended == [True]
        assert said["paths"][second] > 0
        check(site, tree, said["image"])
