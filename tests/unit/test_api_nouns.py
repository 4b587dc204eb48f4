"""The API by its nouns: the table of modules is true, and a part answers as the whole."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

from holdfast.faces.api import nouns

if TYPE_CHECKING:
    from fastapi.routing import APIRoute


def routes(noun: str | None = None) -> list[APIRoute]:
    return [route for router in nouns.routers(noun) for route in router.routes]  # type: ignore[misc]


def test_the_table_names_the_modules_of_every_route() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for route in routes():
        module = route.endpoint.__module__.rpartition(".")[2]
        found[route.path.split("/")[1]].add(module)
    assert {noun: set(modules) for noun, modules in nouns.MODULES.items()} == found


def test_a_part_has_all_routes_of_its_noun_in_the_order_of_the_whole() -> None:
    def of(noun: str, of_which: list[APIRoute]) -> list[tuple[str, frozenset[str]]]:
        below = [route for route in of_which if nouns.of_path(route.path[1:]) == noun]
        return [(route.path, frozenset(route.methods or ())) for route in below]

    whole = routes()
    assert len(whole) > 100
    for noun in nouns.MODULES:
        assert of(noun, routes(noun)) == of(noun, whole) != []


def test_a_word_that_is_no_noun_is_of_the_whole() -> None:
    assert nouns.of_path("jobs/7/events") == "jobs"
    assert nouns.of_path("openapi.json") is None
    assert nouns.of_path("") is None
    assert nouns.of_path("health") is None


def test_one_noun_loads_no_other() -> None:
    program = (
        "import sys\n"
        "from holdfast.faces.api import app, nouns\n"
        "nouns.routers('tokens')\n"
        "print([one for one in sys.modules if one.startswith('holdfast.faces.api.')])\n"
    )
    done = subprocess.run(
        (sys.executable, "-c", program), capture_output=True, text=True, check=True
    )
    assert "holdfast.faces.api.tokens" in done.stdout
    for other in ("jobs", "policies", "virtual_machines", "instant", "examples"):
        assert f"holdfast.faces.api.{other}'" not in done.stdout, other
