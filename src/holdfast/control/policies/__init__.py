"""Policies: what is backed up, when, where to, and how long it is kept.

The front door; nothing outside imports the modules behind it. Must not move data nor ask a
clock.
"""

from holdfast.control.policies.book import Applied, PolicyBook, Snapshot
from holdfast.control.policies.clients import (
    KnownClients,
    PolicySource,
    sources,
    sources_of,
    undivided,
)
from holdfast.control.policies.document import Document, Format, from_data, parse, render
from holdfast.control.policies.files_type import FilesType
from holdfast.control.policies.findings import Finding, Severity, errors_of
from holdfast.control.policies.live import PastBackup, Probe, Room, check_live
from holdfast.control.policies.live_machines import MachineProbe, check_live_machines
from holdfast.control.policies.machine_selection import (
    MACHINES,
    NO_QUIESCE,
    REQUIRE_QUIESCE,
    MachineSelection,
    MachineSource,
    machine_sources,
    machines_of,
)
from holdfast.control.policies.machines_type import MachinesType
from holdfast.control.policies.plain import from_plain, to_plain
from holdfast.control.policies.plan import (
    Change,
    FieldChange,
    Plan,
    StoredPolicy,
    field_changes,
    make_plan,
)
from holdfast.control.policies.policy import (
    ALL_LOCAL_DRIVES,
    DEFAULT_STORAGE_UNIT,
    Drives,
    Limits,
    Policy,
    Selection,
)
from holdfast.control.policies.rows import Act, Filter, Revision
from holdfast.control.policies.streams import (
    UNDIVIDED,
    Split,
    SplitKey,
    can_divide,
    may_be_by_prefix,
    require_fitting,
    streams_of,
)
from holdfast.control.policies.templates import Template, template, templates
from holdfast.control.policies.terms import terms_by, terms_of
from holdfast.control.policies.texts import read_span, read_window, write_span, write_window
from holdfast.control.policies.types import TYPES, PolicyType, PolicyTypes
from holdfast.control.policies.validation import SiteFacts, review, validate
from holdfast.control.policies.verify_boot import VerifyBoot

__all__ = [
    "ALL_LOCAL_DRIVES",
    "DEFAULT_STORAGE_UNIT",
    "MACHINES",
    "NO_QUIESCE",
    "REQUIRE_QUIESCE",
    "TYPES",
    "UNDIVIDED",
    "Act",
    "Applied",
    "Change",
    "Document",
    "Drives",
    "FieldChange",
    "FilesType",
    "Filter",
    "Finding",
    "Format",
    "KnownClients",
    "Limits",
    "MachineProbe",
    "MachineSelection",
    "MachineSource",
    "MachinesType",
    "PastBackup",
    "Plan",
    "Policy",
    "PolicyBook",
    "PolicySource",
    "PolicyType",
    "PolicyTypes",
    "Probe",
    "Revision",
    "Room",
    "Selection",
    "Severity",
    "SiteFacts",
    "Snapshot",
    "Split",
    "SplitKey",
    "StoredPolicy",
    "Template",
    "VerifyBoot",
    "can_divide",
    "check_live",
    "check_live_machines",
    "errors_of",
    "field_changes",
    "from_data",
    "from_plain",
    "machine_sources",
    "machines_of",
    "make_plan",
    "may_be_by_prefix",
    "parse",
    "read_span",
    "read_window",
    "render",
    "require_fitting",
    "review",
    "sources",
    "sources_of",
    "streams_of",
    "template",
    "templates",
    "terms_by",
    "terms_of",
    "to_plain",
    "undivided",
    "validate",
    "write_span",
    "write_window",
]
