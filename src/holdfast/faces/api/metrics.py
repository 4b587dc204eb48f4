"""``/metrics`` for Prometheus: what the API does, and cheap numbers of the site.

Must not ask anything that takes long: a scrape comes every few seconds. Invariant: labels take few
values, none of which a request can make up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from starlette.exceptions import HTTPException
from starlette.requests import Request

from holdfast import __version__
from holdfast.base.errors import HoldfastError
from holdfast.control.access import Principal, Verb
from holdfast.faces.api.door import make_router, may
from holdfast.faces.api.statuses import status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holdfast.site.master import Master

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

router = make_router("Health")


class Requests:
    """Counts requests by route and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._total = Counter(
            "holdfast_api_requests",
            "Requests answered.",
            ("operation", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "holdfast_api_request_seconds",
            "How long answers took, up to their first byte.",
            ("operation",),
            buckets=_SECONDS,
            registry=registry,
        )

    def answered(self, operation: str, status: int, elapsed_s: float) -> None:
        """Count a request that was answered."""
        self._total.labels(operation, str(status)).inc()
        self._seconds.labels(operation).observe(elapsed_s)

    def failed(self, operation: str, error: Exception, elapsed_s: float) -> None:
        """Count a request that ended in an error."""
        if isinstance(error, HoldfastError):
            status = status_of(error)
        elif isinstance(error, RequestValidationError):
            status = 422
        else:
            status = error.status_code if isinstance(error, HTTPException) else 500
        self.answered(operation, status, elapsed_s)


def _site(_master: Master) -> Iterator[Metric]:
    info = InfoMetricFamily("holdfast", "What is running.")
    info.add_metric([], {"version": __version__})
    yield info


def _access(master: Master) -> Iterator[Metric]:
    yield GaugeMetricFamily("holdfast_users", "Users.", master.access.count_users())
    yield GaugeMetricFamily(
        "holdfast_audit_rows", "Rows of the audit log.", master.audit.head().seq
    )


NUMBERS: tuple[Callable[[Master], Iterable[Metric]], ...] = (_site, _access)
"""Where the numbers come from; each is asked at every scrape."""


class Numbers(Collector):
    """Asks the books when it is scraped."""

    def __init__(self, master: Master) -> None:
        self._master = master

    def describe(self) -> list[Metric]:
        """Nothing: else registering would ask the books."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Ask."""
        for numbers in NUMBERS:
            yield from numbers(self._master)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def read_metrics(_: Annotated[Principal, may(Verb.METRICS)], request: Request) -> Response:
    """Counters and gauges in the text format of Prometheus."""
    registry: CollectorRegistry = request.app.state.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
