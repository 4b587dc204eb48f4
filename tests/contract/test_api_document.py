"""The API does what its document says, whatever is sent to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from holdfast.control.access import ProviderLogins, Registration, Role
from holdfast.control.jobs import JobKind, NewJob, Outcome, Remark, Result, Severity
from holdfast.faces.api.app import TAGS
from holdfast.faces.api.serving import serving_https
from tests.kit import quick_disk
from tests.kit.api import Api, make_api
from tests.kit.certificates import https_here
from tests.kit.databases import new_file
from tests.kit.real_pool import put_pool

HOOKS = """
import schemathesis
from hypothesis import strategies as st

# Which passwords are too easy, a schema can't say.
schemathesis.openapi.format("password", st.uuids().map(str))

# Examples of what is there once, or was never given here: with those nothing else would be done.
ONCE = {"Idempotency-Key", "cursor", "revision"}

@schemathesis.hook
def before_load_schema(context, raw_schema):
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in ONCE:
                    parameter.pop("example", None)
"""


def provider() -> httpx.Client:
    """An identity provider that refuses everybody."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/.well-known/"):
            places = ["authorization_endpoint", "token_endpoint", "jwks_uri"]
            places.append("device_authorization_endpoint")
            here = "https://id.example.org"
            described = {"issuer": here} | {name: f"{here}/{name}" for name in places}
            return httpx.Response(200, json=described)
        return httpx.Response(400, json={"error": "invalid_grant"})

    return httpx.Client(transport=httpx.MockTransport(answer))


@pytest.fixture
def api() -> Iterator[Api]:
    """An API whose database does not wait for a disk."""
    with quick_disk.directory() as home:
        database = new_file(home / "control.db")
        with make_api(database, home) as made:
            registration = Registration("https://id.example.org", "site", "", "email")
            made.master.logins = ProviderLogins(
                database, made.clock, made.master.access, registration, provider
            )
            made.master.site.config = replace(made.master.site.config, pool_url=str(home / "pool"))
            put_pool(made, home / "pool")
            # Who asks for the document waits ten seconds for it; it is made once.
            made.app.openapi()
            yield made
        database.close()


def fill(api: Api) -> None:
    """Things that have small numbers, for requests to find."""
    book = api.master.jobs
    path = (Remark(Severity.ERROR, "no permission", "may not", path=b"/\xff"),)
    for added in book.enqueue([NewJob(kind=JobKind.BACKUP)] * 3):
        for granted in book.grant([added.id]):
            book.end(added.id, granted.job.fence, Result(Outcome.COMPLETED), path)


@pytest.mark.parametrize("tag", [tag["name"] for tag in TAGS])
def test_schemathesis_finds_nothing(api: Api, tmp_path: Path, tag: str) -> None:
    fill(api)
    book = api.master.access
    book.add_user("tester", role=Role.ADMINISTRATOR)
    _, token = book.create_token("tester", "schemathesis")
    left_out = []
    if tag == "Own account":
        # A token has none; a login has one, and must not be ended.
        _, token = book.open_session("tester", "schemathesis")
        left_out = ["--exclude-operation-id=log_out"]
    (tmp_path / "hooks.py").write_text(HOOKS)
    https = https_here(tmp_path)
    with serving_https(api.app, https) as port:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run"),
                f"https://localhost:{port}/api/v1/openapi.json",
                f"--tls-verify={https.certificate}",
                f"--header=Authorization: Bearer {token}",
                f"--include-tag={tag}",
                *left_out,
                # A stream of a job that waits does not end; unit tests follow some.
                "--exclude-operation-id=follow_job",
                # It makes a pool wherever it is told to.
                "--exclude-operation-id=create_storage_unit",
                # It looks for machines wherever it is told to.
                "--exclude-operation-id=discover_hypervisor",
                # What is known to be wrong of each field comes first; chance adds little to it.
                "--phases=examples,coverage,fuzzing",
                "--max-examples=4",
                "--seed=1",
                "--no-color",
                "--suppress-health-check=all",
            ],
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
