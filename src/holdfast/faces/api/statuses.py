"""One status of HTTP for each class of error; what is refused, and what went wrong.

Must not load anything of the web: commands ask it too. Invariant: a class that is not in the table
is as its parent is.
"""

from __future__ import annotations

from holdfast.base import errors

STATUS: dict[type[errors.HoldfastError], int] = {
    errors.HoldfastError: 500,
    errors.UsageError: 400,
    errors.Invalid: 422,
    # The request is what it should be; what it asks for is not to be had here and now.
    errors.PolicyInvalid: 409,
    errors.ImageAmbiguous: 409,
    errors.KeyReused: 409,
    errors.TooLarge: 413,
    errors.SiteError: 503,
    errors.SiteExists: 409,
    errors.PoolError: 503,
    errors.PoolExists: 409,
    errors.ClientKeyNeeded: 409,
    errors.IntegrityError: 500,
    errors.NotFound: 404,
    errors.ObjectMissing: 500,
    errors.CatalogError: 503,
    errors.StorageError: 503,
    errors.NoSpace: 507,
    errors.NoPermission: 500,
    errors.ObjectExists: 409,
    errors.AccessError: 403,
    errors.NotAuthenticated: 401,
    errors.Forbidden: 403,
    errors.TooManyAttempts: 429,
    errors.AlreadyExists: 409,
    errors.EditConflict: 409,
    errors.ImageProtected: 409,
    errors.ClockDoubtful: 409,
    errors.TargetNotEmpty: 409,
    errors.WrongState: 409,
    errors.WorkerLost: 503,
    errors.HypervisorError: 503,
    errors.Fenced: 409,
    errors.Busy: 409,
    errors.Unsupported: 501,
    errors.Cancelled: 409,
    errors.InternalError: 500,
}
"""The one table from class to status; a class that is not in it has its parent's."""


def status_of(error: errors.HoldfastError) -> int:
    """The HTTP status that tells of an error."""
    return next(STATUS[one] for one in type(error).__mro__ if one in STATUS)


def is_refusal(error: errors.HoldfastError) -> bool:
    """Whether an error says that nothing was changed, and not that something went wrong."""
    return status_of(error) < 500
