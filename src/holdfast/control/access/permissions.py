"""What each role may do: one table, from role to verbs.

Must not look at who somebody is. Invariant: whatever is not in the table is forbidden.
"""

from __future__ import annotations

from enum import StrEnum


class Verb(StrEnum):
    """What somebody may be allowed to do. The value is part of the API's document."""

    SEE = "see"
    """Look at policies, schedules, clients, jobs, activity, events, images."""
    BROWSE = "browse"
    """Look into images: names of directories and files."""
    EDIT_POLICIES = "edit-policies"
    """Make, change and remove policies."""
    RUN_POLICIES = "run-policies"
    """Start backups."""
    CONTROL_JOBS = "control-jobs"
    """Cancel, suspend, resume and restart jobs."""
    RESTORE = "restore"
    """Bring back what images hold."""
    PROTECT = "protect"
    """Hold and lock images."""
    LET_GO = "let-go"
    """Lift holds, expire images, apply retention."""
    CONFIGURE = "configure"
    """Change settings and storage of the site, and protect its catalog."""
    MANAGE_USERS = "manage-users"
    """Everything about users and tokens, those of others too."""
    OWN_ACCOUNT = "own-account"
    """One's own password and tokens."""
    READ_AUDIT = "read-audit"
    """Read and verify the audit log."""
    METRICS = "metrics"
    """Read counters of the whole site."""


class Role(StrEnum):
    """What a user is here for."""

    ADMINISTRATOR = "administrator"
    OPERATOR = "operator"
    RESTORE_OPERATOR = "restore-operator"
    AUDITOR = "auditor"


PERMISSIONS: dict[Role, frozenset[Verb]] = {
    Role.ADMINISTRATOR: frozenset(Verb),
    Role.OPERATOR: frozenset(
        {
            Verb.SEE,
            Verb.BROWSE,
            Verb.RUN_POLICIES,
            Verb.CONTROL_JOBS,
            Verb.PROTECT,
            Verb.OWN_ACCOUNT,
            Verb.METRICS,
        }
    ),
    Role.RESTORE_OPERATOR: frozenset({Verb.SEE, Verb.BROWSE, Verb.RESTORE, Verb.OWN_ACCOUNT}),
    Role.AUDITOR: frozenset({Verb.SEE, Verb.READ_AUDIT, Verb.OWN_ACCOUNT, Verb.METRICS}),
}

SITE_WIDE = frozenset({Verb.CONFIGURE, Verb.MANAGE_USERS, Verb.READ_AUDIT, Verb.METRICS})
"""What can't be bounded to some clients. Who is bounded to some may do none of it: to manage users
would be to give oneself the others."""
