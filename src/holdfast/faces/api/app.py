"""The application: every router joined, every error a problem, every route guarded.

Must not know any noun. The same application answers on a socket (see `serving`) and inside a
process that has no site to talk to (see `faces.cli.api_client`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.routing import compile_path

from holdfast import __version__
from holdfast.control.access import Strangers
from holdfast.faces.api import metrics, nouns, problems
from holdfast.faces.api.limits import BodyLimit

if TYPE_CHECKING:
    from holdfast.site.master import Master

PREFIX = "/api/v1"

TAGS = [
    {"name": "Own account", "description": "Logging in and out, who one is, one's password."},
    {"name": "Policies", "description": "What is backed up, when, where to, for how long."},
    {"name": "Policies as code", "description": "Whole documents of policies; templates."},
    {"name": "Schedule", "description": "What is going to start, as things stand."},
    {"name": "Jobs", "description": "What there is to do, who does it, and what happened to it."},
    {"name": "Activity", "description": "What came of backup sets and other work, in numbers."},
    {"name": "Images", "description": "What there is to restore, and what keeps it."},
    {"name": "Retention", "description": "What rules keep, and letting go of the rest."},
    {"name": "Files", "description": "What is in images: names, versions, content, differences."},
    {"name": "Sources", "description": "Clients, and what of them there are images of."},
    {"name": "Machines", "description": "Hosts that have joined, and letting them in and out."},
    {
        "name": "Virtual machines",
        "description": "Hypervisors, the machines on them, and what protects each.",
    },
    {"name": "Pool", "description": "What the pool holds, and what is done for it as a whole."},
    {"name": "Settings", "description": "What is set for the site, and who set it."},
    {"name": "Users", "description": "Who may log in, as what, and for which clients."},
    {"name": "Tokens", "description": "What programs log in with."},
    {"name": "Audit", "description": "Every act, and what was refused, in a chain of hashes."},
    {"name": "Health", "description": "For whoever watches over the process."},
]


class Api(FastAPI):
    """FastAPI, with a document that says all."""

    _document: dict[str, Any] | None = None

    def methods_of(self, path: str) -> list[str]:
        """What can be done with a path, by the document."""
        found: set[str] = set()
        for template, operations in self.openapi()["paths"].items():
            if compile_path(template)[0].match(path):
                found |= {method.upper() for method in operations}
        return sorted(found)

    def openapi(self) -> dict[str, Any]:
        """The document."""
        if self._document is None:
            from holdfast.faces.api import document, examples

            made = super().openapi()
            document.complete(made)
            examples.add_all(made)
            self._document = made
        return self._document


def make_app(
    master: Master, owners: frozenset[int] | None = None, noun: str | None = None
) -> FastAPI:
    """Make the application of one master server.

    Args:
        master: What it speaks for; it has to stay open.
        owners: Ids of the users of the operating system who are let in without a token, where it is
            known who is at the other end; root and this process's user if not given.
        noun: Only what is below ``PREFIX/noun``; else all, and what is at the root.
    """
    app = Api(
        title="Holdfast",
        version=__version__,
        summary="Backup and recovery for a whole site.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_url=f"{PREFIX}/openapi.json",
        openapi_tags=TAGS,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    registry = CollectorRegistry()
    app.state.master = master
    app.state.owners = owners if owners is not None else frozenset({0, os.geteuid()})
    app.state.registry = registry
    app.state.requests = metrics.Requests(registry)
    app.state.strangers = Strangers()
    registry.register(metrics.Numbers(master))
    problems.install(app)
    app.add_middleware(BodyLimit)
    for router in nouns.routers(noun):
        app.include_router(router, prefix=PREFIX)
    if noun is None:
        for router in nouns.root_routers():
            app.include_router(router)
    return app


class ByNoun:
    """The application of one master server, of which as much is made as is asked for.

    Loading all of it takes longer than most of what a single command asks.
    """

    def __init__(self, master: Master) -> None:
        """Make nothing yet.

        Args:
            master: What it speaks for; it has to stay open.
        """
        self._master = master
        self._parts: dict[str | None, FastAPI] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as the whole application would."""
        noun = nouns.of_path(scope["path"].removeprefix(f"{PREFIX}/"))
        if noun not in self._parts:
            self._parts[noun] = make_app(self._master, noun=noun)
        await self._parts[noun](scope, receive, send)
