"""Hypervisors of a site, the virtual machines on them, and queries that select some.

The front door. Must not speak to a hypervisor. Not to be confused with `control.machines`: those
are hosts that have joined the site with an agent or as a media server.
"""

from holdfast.control.hypervisors.book import HypervisorBook
from holdfast.control.hypervisors.estate import Estate, parsed
from holdfast.control.hypervisors.hypervisor import (
    DEFAULT_PER_DATASTORE,
    DEFAULT_PER_HOST,
    MOST_AT_ONCE,
    Hypervisor,
    VirtualMachine,
    client_of,
    client_of_name,
    hypervisor_name,
)
from holdfast.control.hypervisors.query import FIELDS, Query, parse

__all__ = [
    "DEFAULT_PER_DATASTORE",
    "DEFAULT_PER_HOST",
    "FIELDS",
    "MOST_AT_ONCE",
    "Estate",
    "Hypervisor",
    "HypervisorBook",
    "Query",
    "VirtualMachine",
    "client_of",
    "client_of_name",
    "hypervisor_name",
    "parse",
    "parsed",
]
