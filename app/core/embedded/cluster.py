"""The cluster: created whole or not at all, and given back its passwords."""

import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from app.core.embedded.diagnosis import failure_of
from app.core.embedded.failures import EmbeddedFailed
from app.core.embedded.leftovers import end_leftovers
from app.core.embedded.names import APP_ROLE, DATABASE, MAJOR_VERSION, OWNER_ROLE, PACKAGE, ROLES, SUPERUSER
from app.core.embedded.processes import ENVIRONMENT
from app.core.embedded.programs import run
from app.core.embedded.record import read_record, write_record
from app.core.embedded.site import Site


def ensure_cluster(site: Site, data_dir: Path) -> dict[str, str]:
    """The passwords of the three roles of a cluster that is complete and that nobody runs."""
    known = read_record(data_dir).get("passwords")
    passwords: dict[str, str] = known or {role: secrets.token_urlsafe(24) for role in ROLES}
    write_record(data_dir, pid=None, owner=None, passwords=passwords)
    for abandoned in site.cluster.parent.glob("postgres.new-*"):
        _delete(abandoned)
    if not site.cluster.exists():
        _create_cluster(site, passwords)
        return passwords
    _refuse_other_version(site)
    end_leftovers(site)
    if not known:
        _single_user(site, site.cluster, [f"ALTER ROLE {role} PASSWORD '{word}';" for role, word in passwords.items()])
    return passwords


def _create_cluster(site: Site, passwords: dict[str, str]) -> None:
    """Built beside its place and moved there when it is whole and on disk: a kill in between leaves no half of it."""
    home = site.cluster.parent
    unfinished = home / f"postgres.new-{secrets.token_hex(4)}"
    try:
        unfinished.mkdir(0o700)
        if site.account:
            os.chown(unfinished, site.account.uid, site.account.gid)
        _initdb(site, unfinished, passwords[SUPERUSER])
        _single_user(site, unfinished, _first_statements(passwords), "-F")
        if site.durable:
            run(site, "initdb", "--sync-only", "-D", unfinished)
        unfinished.rename(site.cluster)
        if site.durable:
            _sync_folder(home)
    finally:
        _delete(unfinished)


def _delete(path: Path) -> None:
    """A file or a folder, also while a killed initdb's last child still writes into it: what stays goes next time."""
    if path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _initdb(site: Site, folder: Path, password: str) -> None:
    """A password file is the only way in that neither shows in the process list nor trusts anyone for a moment."""
    file = folder.with_name(f"{folder.name}.password")
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8") as pwfile:
            pwfile.write(password)
            if site.account:
                os.fchown(fd, site.account.uid, site.account.gid)
        run(
            site, "initdb", "-D", folder, "-U", SUPERUSER, f"--pwfile={file}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C.UTF-8", "--lc-messages=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
    finally:
        file.unlink(missing_ok=True)


def _first_statements(passwords: dict[str, str]) -> list[str]:
    return [
        f"CREATE ROLE {OWNER_ROLE} LOGIN PASSWORD '{passwords[OWNER_ROLE]}';",
        f"CREATE ROLE {APP_ROLE} LOGIN PASSWORD '{passwords[APP_ROLE]}';",
        f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE};",
    ]


def _single_user(site: Site, folder: Path, statements: list[str], *options: str) -> None:
    """Run statements without a server, one to a line. PostgreSQL ends with success after a failed one, so look."""
    script = "\n".join(statements) + "\n"
    said = run(
        site, "postgres", "--single", "-D", folder, *options, "-c", "log_checkpoints=off", SUPERUSER, script=script
    )
    if "ERROR:" in said:
        raise failure_of(said.splitlines(), site)


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
    ours = subprocess.run([site.binaries / "postgres", "-V"], capture_output=True, env=ENVIRONMENT, check=False).stdout
    match = re.search(rb"\) (\d+)", ours)
    version = match[1].decode() if match else MAJOR_VERSION
    if found != version:
        raise EmbeddedFailed(
            f"The cluster {site.cluster} was made by PostgreSQL {found} and the installed one is {version}: "
            f"install the release of {PACKAGE} that made it, or move the data folder away to start empty."
        )
