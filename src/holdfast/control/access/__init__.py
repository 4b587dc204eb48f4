"""Who may do what: users, tokens, roles, the scope of clients, and the log of every act.

The front door. Must not know how requests travel. Invariant: nothing here is enough to log in with:
what is stored of a password or a token can only be compared.
"""

from holdfast.control.access.accounts import Token, User
from holdfast.control.access.acts import ActBook, Answer, Attempt, Ticket
from holdfast.control.access.audit import AuditLog, Filter
from holdfast.control.access.book import AccessBook
from holdfast.control.access.chain import Break, Entry, Head, Outcome, Row, Verification
from holdfast.control.access.passwords import Cost
from holdfast.control.access.permissions import PERMISSIONS, SITE_WIDE, Role, Verb
from holdfast.control.access.principal import Principal, Way, local
from holdfast.control.access.provider import Pending, Registration
from holdfast.control.access.provider_logins import ProviderLogins
from holdfast.control.access.rows import token_key
from holdfast.control.access.scope import ALL_CLIENTS, Scope
from holdfast.control.access.strangers import ROWS_A_MINUTE, Strangers

__all__ = [
    "ALL_CLIENTS",
    "PERMISSIONS",
    "ROWS_A_MINUTE",
    "SITE_WIDE",
    "AccessBook",
    "ActBook",
    "Answer",
    "Attempt",
    "AuditLog",
    "Break",
    "Cost",
    "Entry",
    "Filter",
    "Head",
    "Outcome",
    "Pending",
    "Principal",
    "ProviderLogins",
    "Registration",
    "Role",
    "Row",
    "Scope",
    "Strangers",
    "Ticket",
    "Token",
    "User",
    "Verb",
    "Verification",
    "Way",
    "local",
    "token_key",
]
