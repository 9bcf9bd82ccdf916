"""The cluster: created whole or not at all, and given back its passwords."""

import os
import secrets
import shutil
from pathlib import Path

from app.core.embedded.failures import EmbeddedFailed, failure_of
from app.core.embedded.names import APP_ROLE, DATABASE, DISTRIBUTION, HOST, MAJOR_VERSION, OWNER_ROLE, ROLES, SUPERUSER
from app.core.embedded.programs import end_leftovers, run
from app.core.embedded.record import read_record, write_record
from app.core.embedded.site import Site


def ensure_cluster(site: Site, data_dir: Path) -> dict[str, str]:
    """The passwords of the three roles of a cluster that is complete and that nobody runs."""
    known = read_record(data_dir).get("passwords")
    passwords: dict[str, str] = known or {role: secrets.token_urlsafe(24) for role in ROLES}
    write_record(data_dir, pid=None, owner=None, passwords=passwords)
    for abandoned in site.cluster.parent.glob("postgres.new-*"):
        # A killed initdb's last child may still write into it: what stays goes next time.
        shutil.rmtree(abandoned, ignore_errors=True)
    if not site.cluster.exists():
        _create_cluster(site, passwords)
        return passwords
    _refuse_other_version(site)
    end_leftovers(site)
    if not known:
        _single_user(site, site.cluster, _set_passwords(passwords))
    return passwords


def _create_cluster(site: Site, passwords: dict[str, str]) -> None:
    """Built beside its place and moved there when it is whole and on disk: a kill in between leaves no half of it."""
    home = site.cluster.parent
    unfinished = home / f"postgres.new-{secrets.token_hex(4)}"
    try:
        unfinished.mkdir(0o700)
        if site.account:
            os.chown(unfinished, site.account.uid, site.account.gid)
        # Nobody gets in until there are passwords: they go through a pipe, and show in no process list.
        run(
            site, "initdb", "-D", unfinished, "-U", SUPERUSER, "--auth=reject",
            "--encoding=UTF8", "--locale=C.UTF-8", "--lc-messages=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        roles = [f"CREATE ROLE {role} LOGIN;" for role in (OWNER_ROLE, APP_ROLE)]
        database = f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE};"
        _single_user(site, unfinished, [*roles, *_set_passwords(passwords), database], "-F")
        (unfinished / "pg_hba.conf").write_text(f"host all all {HOST}/32 scram-sha-256\n", encoding="utf-8")
        if site.durable:
            run(site, "initdb", "--sync-only", "-D", unfinished)
        unfinished.rename(site.cluster)
        if site.durable:
            _sync_folder(home)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _set_passwords(passwords: dict[str, str]) -> list[str]:
    return [f"ALTER ROLE {role} PASSWORD '{word}';" for role, word in passwords.items()]


def _single_user(site: Site, folder: Path, statements: list[str], *options: str) -> None:
    """Run statements without a server, one to a line. PostgreSQL ends with success after a failed one, so look."""
    script = "\n".join(statements) + "\n"
    said = run(
        site, "postgres", "--single", "-D", folder, *options, "-c", "log_checkpoints=off", SUPERUSER, script=script
    )
    if "ERROR:" in said:
        raise failure_of(said.splitlines(), site.cluster, site.log)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _refuse_other_version(site: Site) -> None:
    path = site.cluster / "PG_VERSION"
    if not path.exists():
        raise EmbeddedFailed(
            f"{site.cluster} is not a PostgreSQL cluster (no PG_VERSION): move it away to start empty."
        )
    found = path.read_text(encoding="utf-8", errors="replace").strip()
    if found != MAJOR_VERSION:
        raise EmbeddedFailed(
            f"The cluster {site.cluster} was made by PostgreSQL {found} and the installed one is {MAJOR_VERSION}: "
            f"install the release of {DISTRIBUTION} that made it, or move the data folder away to start empty."
        )
