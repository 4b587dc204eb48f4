"""A real OpenID Connect provider for tests: the certified ``oidc-provider``, installed once by npm.

Must not outlive the test run: the server is a child process. Anybody logs in there under any name,
with any password.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "9.13.3"
PACKAGE = f"oidc-provider@{VERSION}"
CLIENT = "holdfast"
SECRET = "a secret / of + the site"
PUBLIC_CLIENT = "holdfast-public"

PROGRAM = """
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const server = createServer((request, response) => handle(request, response));
let handle;
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const shared = {
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/'],
    grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
    response_types: ['code'],
  };
  const provider = new Provider(issuer, {
    clients: [
      { ...shared, client_id: 'CLIENT', client_secret: 'SECRET',
        token_endpoint_auth_method: 'client_secret_basic' },
      { ...shared, client_id: 'PUBLIC', token_endpoint_auth_method: 'none' },
    ],
    features: { deviceFlow: { enabled: true } },
    pkce: { required: () => true },
    cookies: { keys: ['of a test'] },
    claims: {
      openid: ['sub'], email: ['email', 'email_verified'], profile: ['preferred_username'],
    },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: id, email: `${id}@example.org`, email_verified: id !== 'mallory',
        preferred_username: id,
      }),
    }),
  });
  handle = provider.callback();
  console.log(issuer);
});
process.stdin.on('end', () => process.exit(0)).resume();
"""


@dataclass(frozen=True)
class RunningProvider:
    """A provider that answers.

    Attributes:
        issuer: Its URL.
    """

    issuer: str

    def log_in(self, url: str, name: str, *, consent: bool = True) -> httpx.URL:
        """Do in a browser what a person does, up to where it would be sent back to."""
        with httpx.Client() as browser:
            answer = browser.get(url)
            while True:
                if answer.is_redirect:
                    place = httpx.URL(urljoin(str(answer.url), answer.headers["location"]))
                    if not str(place).startswith(self.issuer):
                        return place
                    answer = browser.get(place)
                    continue
                found = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
                assert found is not None, answer.text
                form = {"prompt": "login", "login": name, "password": "any"}
                if 'value="consent"' in answer.text:
                    if not consent:
                        answer = browser.get(found[1] + "/abort")
                        continue
                    form = {"prompt": "consent"}
                answer = browser.post(urljoin(str(answer.url), found[1]), data=form)

    def log_in_on_device(self, url: str, code: str, name: str, *, consent: bool = True) -> None:
        """Do in a browser of another device what a person does, up to its last page."""
        with httpx.Client(follow_redirects=True) as browser:
            answer = browser.get(url)
            form = hidden(answer.text) | {"user_code": code}
            answer = browser.post(place_of(answer), data=form)
            answer = browser.post(place_of(answer), data=hidden(answer.text))
            answer = browser.post(
                place_of(answer), data={"prompt": "login", "login": name, "password": "any"}
            )
            if not consent:
                browser.get(place_of(answer) + "/abort")
                return
            answer = browser.post(place_of(answer), data={"prompt": "consent"})
            assert "Sign-in Success" in answer.text, answer.text


def place_of(answer: httpx.Response) -> str:
    """Where the form of a page goes."""
    found = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
    assert found is not None, answer.text
    return str(urljoin(str(answer.url), found[1]))


def hidden(text: str) -> dict[str, str]:
    """What the form of a page sends along, whatever a person enters."""
    fields = re.findall(r'<input[^>]*type="hidden"[^>]*>', text)
    pairs = [re.findall(r'(name|value)="([^"]*)"', one) for one in fields]
    return {dict(one)["name"]: dict(one).get("value", "") for one in pairs}


def installed() -> Path | None:
    """Where the package is, installing it into the virtual environment the first time.

    Returns:
        A directory; None when there is no Node or no npm.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    directory = Path(sys.prefix) / "share" / f"oidc-provider-{VERSION}"
    directory.parent.mkdir(exist_ok=True)
    with (directory.parent / ".oidc-provider.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may want it at once
        if not directory.exists():
            workshop = Path(tempfile.mkdtemp(dir=directory.parent))
            npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix"]
            done = subprocess.run([*npm, str(workshop), PACKAGE], check=False)
            if done.returncode != 0:
                shutil.rmtree(workshop)
                return None
            workshop.rename(directory)
    return directory


@contextlib.contextmanager
def running(directory: Path) -> Iterator[RunningProvider]:
    """Run a provider while the block lasts."""
    program = directory / "server.mjs"
    text = PROGRAM
    for name, value in (("CLIENT", CLIENT), ("SECRET", SECRET), ("PUBLIC", PUBLIC_CLIENT)):
        text = text.replace(f"'{name}'", f"'{value}'")
    program.write_text(text)
    with subprocess.Popen(
        ["node", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield RunningProvider(process.stdout.readline().strip())
        finally:
            process.kill()
