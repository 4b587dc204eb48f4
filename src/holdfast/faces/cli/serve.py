"""``holdfast serve``: the site at work, in the foreground, until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK, Invalid
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.service_manager import log_to_stderr, tell_service_manager
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from fastapi import FastAPI

    from holdfast.base.settings import Settings
    from holdfast.faces.api.serving import Https
    from holdfast.site.machines import Machines
    from holdfast.site.master import Master
    from holdfast.site.service import Service

_LOOK_S = 1.0


@click.command(
    cls=Command,
    examples=["holdfast serve", "HOLDFAST_SERVE_LISTEN=0.0.0.0:8443 holdfast serve"],
)
@options.json_flag
def serve(as_json: bool) -> int:
    """Run the site: start what is due, do it, keep house, and answer the other commands.

    It stays in the foreground until it is interrupted; 'holdfast service install' has the machine
    start it. What is at work when it stops goes on when it is started again. Settings are shown by
    'holdfast config show'.
    """
    from holdfast.base.clock import SystemClock
    from holdfast.faces.api.app import make_app
    from holdfast.faces.api.serving import serving_locally
    from holdfast.site.master import Master
    from holdfast.site.service import Service

    screen = Screen(as_json=as_json)
    home = opening.home()
    _log()
    source = opening.secret_source()
    with Master.open(home, source, SystemClock(), os.environ) as master:
        # Whoever has to type a passphrase does so before anything is promised.
        _ = master.site.pool
        machines = _machines(master)
        service = Service(master, machines)
        app = make_app(master)
        with (
            _told_to_stop() as told,
            serving_locally(app, home) as path,
            _on_the_network(app, master) as url,
            _to_machines(machines, service) as machines_url,
        ):
            _tell(screen, home, path, url, machines_url)
            tell_service_manager("READY=1")
            _run(screen, service, told)
    return EXIT_OK


def _run(screen: Screen, service: Service, told_to_stop: threading.Event) -> None:
    thread = threading.Thread(target=service.run, name="service")
    thread.start()
    try:
        while thread.is_alive() and not told_to_stop.wait(_LOOK_S):
            continue
    finally:
        tell_service_manager("STOPPING=1")
        screen.say("stopping; what is at work goes back to the queue")
        service.stop()
        thread.join()


@contextlib.contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that a signal sets: an exception could come at a moment that leaves threads behind.

    Ctrl-C for a second time is the usual one.
    """
    told = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        told.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _on_the_network(app: FastAPI, master: Master) -> Iterator[str | None]:
    """Listen for HTTPS, if that is set; at which URL."""
    https = _https(master.settings)
    if https is None:
        yield None
        return
    from holdfast.faces.api.serving import serving_https

    with serving_https(app, https) as port:
        yield f"https://{https.address}:{port}"


def _machines(master: Master) -> Machines | None:
    if not master.settings.text("serve.machines"):
        return None
    from holdfast.site.machines import Machines

    return Machines(master)


@contextlib.contextmanager
def _to_machines(machines: Machines | None, service: Service) -> Iterator[str | None]:
    """Listen for machines of the site, if that is set; at which URL."""
    if machines is None:
        yield None
        return
    from holdfast.site.machines import Storage, serving

    storage = Storage(machines, time.monotonic, service.image_came)
    listen = machines.master.settings.text("serve.machines")
    with serving(machines, listen, [storage.add_routes]) as place:
        yield f"https://{place}"


def _tell(
    screen: Screen, home: Path, socket_path: Path, url: str | None, machines: str | None
) -> None:
    if screen.as_json:
        place = {"home": str(home), "socket": str(socket_path), "url": url, "machines": machines}
        screen.json(place)
        screen.flush()
        return
    also = "" if url is None else f" and {url}"
    screen.say(f"serving {home} on {socket_path}{also}")
    if machines is not None:
        screen.say(f"machines join at {machines}")


def _https(settings: Settings) -> Https | None:
    from holdfast.faces.api.serving import Https

    listen = settings.text("serve.listen")
    if not listen:
        return None
    address, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise Invalid(
            f"serve.listen is '{listen}', which is no address and port",
            "write for example 0.0.0.0:8443 or [::]:8443",
        )
    files = {name: settings.text(f"serve.{name}") for name in ("certificate", "key")}
    for name, file in files.items():
        if not file:
            raise Invalid(
                f"serve.listen is set, and serve.{name} is not",
                "HTTPS needs a certificate and its key, both as PEM files",
            )
    return Https(address.strip("[]"), int(port), Path(files["certificate"]), Path(files["key"]))


def _log() -> None:
    log_to_stderr()
    # They tell of schemas and of servers that start, which is nobody's concern here.
    for name in ("alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
