"""`hub check`: what is right, what is wrong and what is worth knowing about this deployment. It creates nothing."""

import asyncio
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from app.commands.database import CommandFailed, Database, database, explained
from app.commands.findings import Finding, Verdict
from app.core import embedded, migrations
from app.core.invocation import HUB
from app.core.loopback import is_loopback
from app.core.provider_settings import SECRET_SUFFIXES
from app.core.sealing import KeyRing
from app.settings import SECRET, Settings, SettingsError, load, variable

if TYPE_CHECKING:
    from app.commands.provider_checks import Case
    from app.core.database import Sessions

OLDEST_POSTGRESQL = 150_000
"""As `server_version_num` counts."""
AT_FIRST_START = "would be created at the first start"
SECRET_FILES = ("secret-keys", "signing-keys.pem", "sealing-keys.pem", "postgres.json")


def check() -> int:
    """1 where anything is wrong."""
    try:
        settings = load(tty=sys.stderr.isatty())
    except SettingsError as error:
        _show([], [Finding("wrong", "settings", problem) for problem in error.problems])
        return 1
    of_database, providers = _about_database(settings)
    findings = [*_about_settings(settings), *of_database, *_about_keys(settings)]
    findings += [_about_limits(settings), _about_egress(settings), *_about_proxy(settings), *_about_folders(settings)]
    findings += [_about_connectors(), *_about_destinations(settings), _about_mail(settings)]
    findings += _about_providers(settings, providers)
    _show(_listed(settings), findings)
    return 1 if any(finding.verdict == "wrong" for finding in findings) else 0


# --- Settings -------------------------------------------------------------------------------------------------------


def _listed(settings: Settings) -> list[tuple[str, str]]:
    """Every variable with its value, secrets hidden."""
    listed = [
        (variable(field), _value(field, getattr(settings, field)))
        for field in Settings.__struct_fields__
        if field != "identity_providers"
    ]
    given = sorted(settings.identity_providers.items())
    return listed + [(name, "set" if name.endswith(SECRET_SUFFIXES) else text) for name, text in given]


def _value(field: str, value: object) -> str:
    if value in (None, ()):
        return "not set"
    if field in SECRET:
        return "set"
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _about_settings(settings: Settings) -> Iterator[Finding]:
    yield Finding("right", "settings", f"{settings.env}; every variable is known and fits")
    if settings.metrics_address is not None and not is_loopback(settings.metrics_address[0]):
        sentence = f"whoever reaches {settings.metrics_port} reads the metrics without a token"
        yield Finding("note", variable("metrics_port"), sentence)


# --- The database ---------------------------------------------------------------------------------------------------


Examined = tuple[list[Finding], "list[Case] | None"]
"""With the identity providers that it knows of: None where it cannot be asked."""


def _about_database(settings: Settings) -> Examined:
    try:
        if settings.is_embedded:
            embedded.find_installation()
            if not (settings.data_dir / "postgres").exists():
                return [Finding("note", "database", f"the embedded PostgreSQL {AT_FIRST_START}")], None
        with database(settings) as target, explained(target):
            return asyncio.run(_examine(settings, target))
    except (CommandFailed, embedded.EmbeddedError) as error:
        return [Finding("wrong", "database", str(error))], None


async def _examine(settings: Settings, target: Database) -> Examined:
    connection = await asyncpg.connect(target.app_url, timeout=5)
    try:
        findings = [await _version(connection, target), await _revision(connection), await _role(connection, settings)]
        findings.append(await _connections(connection, settings))
        if findings[1].verdict == "right":
            findings += await _keys_gone(connection, settings)
            findings += await _tenants(connection, settings)
    finally:
        await connection.close()
    ring = _key_ring(settings)
    if findings[1].verdict != "right" or isinstance(ring, Finding):
        return findings, None
    from app.commands.provider_checks import of_database

    async with _sessions(target.app_url) as sessions:
        findings += await _stored_secrets(sessions, ring)
        return findings, await of_database(settings, sessions, ring)


@asynccontextmanager
async def _sessions(url: str) -> "AsyncIterator[Sessions]":
    from app.core.database import Sessions, create_engine
    from app.domain.models import METADATA

    assert METADATA.tables
    engine = create_engine(url, pool_size=1, timeout_s=60)
    try:
        yield Sessions(engine)
    finally:
        await engine.dispose()


async def _keys_gone(connection: asyncpg.Connection, settings: Settings) -> list[Finding]:
    """What the next start would say instead of making a ring."""
    from app.commands.keys import RING_GONE, place_of_keys
    from app.domain.sources.secrets.sealed import replaced_keys
    from app.runtime import is_key_ring_missing

    if not is_key_ring_missing(settings) or not (gone := await replaced_keys(connection, None)):
        return []
    sentence = RING_GONE.format(ids=", ".join(gone), place=place_of_keys(settings))
    return [Finding("wrong", "stored secrets", sentence)]


async def _tenants(connection: asyncpg.Connection, settings: Settings) -> list[Finding]:
    """Nothing where there is one, and no host says which is meant."""
    from app.domain.tenants.repositories import slugs

    known = await slugs(connection)
    lost = {host: slug for host, slug in settings.slug_by_host.items() if slug not in known}
    if lost:
        named = "; ".join(f"{host} names {slug}, and there is no such tenant" for host, slug in lost.items())
        return [Finding("wrong", "tenants", f"HUB_TENANT_HOSTS: {named}")]
    if len(known) == 1 and not settings.tenant_hosts:
        return []
    return [
        Finding("right", "tenants", f"{len(known)}; files of others than default are in the folders of their slugs")
    ]


async def _version(connection: asyncpg.Connection, target: Database) -> Finding:
    number, shown = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')"
    )
    if number < OLDEST_POSTGRESQL:
        return Finding("wrong", "database", f"PostgreSQL {shown} is too old, 15 or newer is needed: {target.server}")
    return Finding("right", "database", f"PostgreSQL {shown}: {target.server}")


async def _revision(connection: asyncpg.Connection) -> Finding:
    found, wanted = await migrations.revision_of(connection), migrations.head()
    problem = await migrations.schema_problem(connection)
    if problem is None:
        newest = "the newest" if found == wanted else f"newer than this release's {wanted}, without a break"
        return Finding("right", "migrations", f"at {found}, {newest}")
    if problem.code == "schema_too_new":
        return Finding("wrong", "migrations", problem.sentence)
    return Finding("wrong", "migrations", f"at {found or 'none'}, {wanted} is wanted: run `{HUB} migrate`")


async def _role(connection: asyncpg.Connection, settings: Settings) -> Finding:
    """Who owns a table may alter it, and switch off what the migrations granted, withheld and walled off."""
    role = await migrations.mighty_role(connection)
    if role is None:
        return Finding("right", "database role", "it owns nothing, and sees the rows of one tenant at a time")
    verdict: Verdict = "note" if settings.is_development else "wrong"
    return Finding(verdict, "database role", migrations.MIGHTY.format(role=role))


async def _connections(connection: asyncpg.Connection, settings: Settings) -> Finding:
    """What all processes may open together, against what the server lets this role have."""
    allowed: int = await connection.fetchval(
        """SELECT least(
             current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - coalesce(current_setting('reserved_connections', true)::int, 0),
             (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
             (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))"""
    )
    each, processes = settings.connections_of_process, settings.workers + 1
    servers = "1 server" if settings.workers == 1 else f"{settings.workers} servers"
    sentence = f"{servers} and 1 worker open {each} each, {processes * each} together; PostgreSQL allows {allowed}"
    if processes * each <= allowed:
        return Finding("right", "connections", sentence)
    hint = "lower HUB_POOL_SIZE or HUB_WORKERS, or raise max_connections"
    return Finding("wrong", "connections", f"{sentence}: {hint}")


async def _stored_secrets(sessions: "Sessions", ring: KeyRing) -> list[Finding]:
    """Opened one by one: an id in the ring does not prove that the key is still the same one."""
    from app.domain.auth.repositories import sessions_by_key
    from app.domain.resealing import count_unopened, secrets_by_key

    async with sessions(None) as session:
        by_key, unopened = await secrets_by_key(session), await count_unopened(session, ring)
        signed_in = await sessions_by_key(session)
    total, old = sum(by_key.values()), sum(by_key.values()) - by_key.get(ring.current_id, 0)
    if unopened:
        gone = sorted(by_key.keys() - set(ring.ids))
        hint = f"bring back {', '.join(gone)}" if gone else "a key was replaced under its id: bring the old one back"
        sentence = f"{unopened} of {total} open with no key ({hint}), or have their owners enter them again"
        return [Finding("wrong", "stored secrets", sentence)]
    findings = [Finding("right", "stored secrets", f"{total}, and every one opens")]
    if old:
        findings.append(Finding("note", "stored secrets", f"{old} are under an older key: run `{HUB} keys rotate`"))
    if ended := sorted(signed_in.keys() - set(ring.ids)):
        count = sum(signed_in[key_id].count for key_id in ended)
        sentence = f"{count} rest on {', '.join(ended)}, which is not in the ring: they end with their next refresh"
        findings.append(Finding("wrong", "sessions", f"{sentence}; bring the key back, or have people sign in again"))
    return findings


# --- Keys -----------------------------------------------------------------------------------------------------------


def _about_keys(settings: Settings) -> list[Finding]:
    ring = _key_ring(settings)
    if not isinstance(ring, Finding):
        whence = "given" if settings.secret_keys else "generated"
        ring = Finding("right", "secret keys", f"{whence}: {', '.join(ring.ids)}; {ring.current_id} seals")
    return [ring, _signing_keys(settings), _sealing_keys(settings), *_anchor(settings)]


def _key_ring(settings: Settings) -> KeyRing | Finding:
    """The ring, or what is to be said where there is none."""
    from app.runtime import SECRET_KEYS_FILE, load_key_ring

    if settings.secret_keys is None and not (settings.data_dir / SECRET_KEYS_FILE).exists():
        return Finding("note", "secret keys", AT_FIRST_START)
    try:
        return load_key_ring(settings)
    except SettingsError as error:
        return Finding("wrong", "secret keys", str(error))


def _signing_keys(settings: Settings) -> Finding:
    from app.runtime import load_signing_keys, signing_keys_path

    path = signing_keys_path(settings)
    if settings.signing_keys_file is None and not path.exists():
        return Finding("note", "signing keys", AT_FIRST_START)
    try:
        keys = load_signing_keys(settings)
    except SettingsError as error:
        return Finding("wrong", "signing keys", str(error))
    whence = "given" if settings.signing_keys_file else "generated"
    return Finding(
        "right", "signing keys", f"{whence}: {len(keys)} in {path}; {keys[0].kid} ({keys[0].algorithm}) signs"
    )


def _sealing_keys(settings: Settings) -> Finding:
    """Of workers: what only serves needs none, but who knows where a worker runs."""
    from app.runtime import load_sealing_keys, sealing_keys_path

    path = sealing_keys_path(settings)
    if settings.sealing_keys_file is None and settings.is_development and not path.exists():
        return Finding("note", "sealing keys", AT_FIRST_START)
    if settings.sealing_keys_file is None and not settings.is_development:
        sentence = "HUB_SEALING_KEYS_FILE is not set: no worker starts here, and nobody seals the audit log but others"
        return Finding("note", "sealing keys", sentence)
    try:
        keys = load_sealing_keys(settings)
    except SettingsError as error:
        return Finding("wrong", "sealing keys", str(error))
    whence = "given" if settings.sealing_keys_file else "generated"
    return Finding("right", "sealing keys", f"{whence}: {len(keys)} in {path}; {keys[0].kid} seals the audit log")


def _anchor(settings: Settings) -> Iterator[Finding]:
    """It is read, and nothing is written to it."""
    if settings.audit_anchor is None:
        sentence = "HUB_AUDIT_ANCHOR is not set: an older state of the audit log that is put back cannot be found out"
        yield Finding("note", "audit anchor", sentence)
        return
    from app.domain.seals.anchors import AnchorUnavailable, open_anchor

    try:
        open_anchor(settings.audit_anchor).folders()
    except AnchorUnavailable as error:
        yield Finding("wrong", "audit anchor", f"HUB_AUDIT_ANCHOR: {error}")
    else:
        yield Finding("right", "audit anchor", f"seals are copied to {settings.audit_anchor}")


# --- Limits ---------------------------------------------------------------------------------------------------------


def _about_limits(settings: Settings) -> Finding:
    quotas = f"{settings.rate_limit} for a principal, {settings.login_rate_limit} for sign-ins"
    if settings.redis_url is None:
        return Finding("right", "limits", f"{quotas}; each server process counts for itself (HUB_REDIS_URL is not set)")
    from app.core.redis_link import ask_once

    try:
        asyncio.run(ask_once(settings.redis_url))
    except Exception as error:  # whatever is wrong with it
        away = f"Redis does not answer ({type(error).__name__}), and each server process counts for itself meanwhile"
        return Finding("wrong", "limits", f"{quotas}; {away}")
    return Finding("right", "limits", f"{quotas}; shared over Redis, which answers")


# --- Egress and folders ---------------------------------------------------------------------------------------------


def _about_egress(settings: Settings) -> Finding:
    from app.core.egress import EgressPolicy

    loopback = settings.egress_loopback
    try:
        EgressPolicy(allow=settings.egress_allow, deny=settings.egress_deny, loopback_allowed=loopback)
    except ValueError as error:
        return Finding("wrong", "egress", str(error))
    reach = ["public addresses", *(["this machine"] if loopback else []), *settings.egress_allow]
    shut = f"; never {', '.join(settings.egress_deny)}" if settings.egress_deny else ""
    return Finding("right", "egress", f"sources may be at {', '.join(reach)}{shut}")


PROXY_PATIENCE_S = 5.0
NOWHERE = "hub-check.invalid"
"""A name that is never anybody's (RFC 6761, section 6.4): that a proxy does not get there is what is expected."""
_PROXY_AILMENTS = {
    "unreachable": "takes no connection, or hangs up",
    "timeout": f"did not answer within {PROXY_PATIENCE_S:g} s",
    "unauthorized": "does not accept user and password (407)",
    "invalid": "is no HTTP proxy",
}


def _about_proxy(settings: Settings) -> Iterator[Finding]:
    """Asked for a way to nowhere, so that its answer about the credentials is seen and nobody is dialled."""
    from app.core.tunnels import EgressProxy, TunnelFailed, open_tunnel

    if settings.egress_proxy is None:
        if settings.egress_direct:
            yield Finding("note", "egress proxy", "HUB_EGRESS_DIRECT has no effect: there is no HUB_EGRESS_PROXY")
        return
    proxy = EgressProxy.parse(settings.egress_proxy)
    try:
        asyncio.run(open_tunnel(proxy, NOWHERE, 443, PROXY_PATIENCE_S)).close()
    except TunnelFailed as failure:
        is_slow_over_it = failure.status == 504
        if failure.problem in _PROXY_AILMENTS and not is_slow_over_it:
            yield Finding("wrong", "egress proxy", f"{proxy.place} {_PROXY_AILMENTS[failure.problem]}")
            return
    direct = ", ".join(settings.egress_direct) or "nothing"
    yield Finding(
        "right",
        "egress proxy",
        f"{proxy.place} answers; {direct} is dialled without it. It looks names up itself: one that leads inward "
        "there, and nowhere here, is not seen by the egress policy",
    )


def _about_folders(settings: Settings) -> Iterator[Finding]:
    if not settings.data_dir.exists():
        if settings.is_embedded or settings.is_development:
            yield Finding("note", "data folder", f"{settings.data_dir} {AT_FIRST_START}")
    elif not settings.data_dir.is_dir():
        yield Finding("wrong", "data folder", f"{settings.data_dir} is not a folder")
    else:
        yield _data_folder(settings.data_dir)
    if not settings.files_root.exists():
        yield Finding("note", "files", f"{settings.files_root} does not exist; file sources would find nothing")
    elif not settings.files_root.is_dir():
        yield Finding("wrong", "files", f"{settings.files_root} is not a folder")
    else:
        yield Finding("right", "files", f"file sources may read {settings.files_root}")
    if settings.secret_files_root is not None and not settings.secret_files_root.is_dir():
        yield Finding("wrong", "secret files", f"HUB_SECRET_FILES_ROOT: {settings.secret_files_root} is not a folder")


def _data_folder(folder: Path) -> Finding:
    if _mode(folder) & 0o022:
        return Finding("wrong", "data folder", f"{folder} can be written by others: `chmod go-w` it")
    exposed = [name for name in SECRET_FILES if (folder / name).exists() and _mode(folder / name) & 0o077]
    if exposed:
        return Finding(
            "wrong", "data folder", f"{', '.join(exposed)} in {folder} can be read by others: `chmod 600` it"
        )
    return Finding("right", "data folder", f"{folder}; its secrets are readable by their owner only")


def _about_connectors() -> Finding:
    from app.connectors.processes.confinement import version

    if version():
        return Finding(
            "right", "connectors", f"closed off from this machine's files by the kernel (Landlock {version()})"
        )
    sentence = "this kernel has no Landlock: a driver that is tricked may read whatever the hub's user may"
    return Finding("note", "connectors", sentence)


def _about_destinations(settings: Settings) -> list[Finding]:
    """Where events are published to: whether a worker could sign in there now."""
    return asyncio.run(_try_destinations(settings))


async def _try_destinations(settings: Settings) -> list[Finding]:
    from app.core.publishing import DestinationAway
    from app.domain.events.publishers import destinations_of

    findings = []
    for destination in destinations_of(settings):
        subject = {"broker": "broker", "stream": "events stream"}[destination.name]
        try:
            await destination.connect()
            findings.append(Finding("right", subject, f"{destination} takes events"))
        except DestinationAway as away:
            findings.append(Finding("wrong", subject, str(away)))
        finally:
            await destination.close()
    return findings


def _about_mail(settings: Settings) -> Finding:
    """Whether a worker could hand a letter over now; none is sent."""
    if settings.smtp_url is None:
        sentence = (
            "HUB_SMTP_URL is not set: invitations show their link to who invites, and nobody resets a password alone"
        )
        return Finding("note", "mail", sentence)
    from app.core.mail import MailNotTaken, SmtpServer, try_server
    from app.domain.letters.messages import host_of

    server = SmtpServer.parse(settings.smtp_url, str(settings.smtp_ca_file) if settings.smtp_ca_file else None)
    try:
        asyncio.run(try_server(server, host_of(settings)))
    except MailNotTaken as reason:
        return Finding("wrong", "mail", str(reason))
    links = f"links of letters lead to {settings.url}"
    if settings.public_url is None:
        return Finding("note", "mail", f"{server} takes letters; {links}: set HUB_PUBLIC_URL")
    return Finding("right", "mail", f"{server} takes letters; {links}")


def _about_providers(settings: Settings, providers: "list[Case] | None") -> list[Finding]:
    """Whether people could sign in by them now."""
    if not (settings.providers if providers is None else providers):
        return []
    from app.commands.provider_checks import examine, of_settings

    return asyncio.run(examine(settings, of_settings(settings) if providers is None else providers))


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- Showing it -----------------------------------------------------------------------------------------------------

COLOURS: dict[Verdict, str] = {"right": "green", "wrong": "bold red", "note": "yellow"}


def _show(settings: list[tuple[str, str]], findings: list[Finding]) -> None:
    if not sys.stdout.isatty():
        for row in settings:
            print("  ".join((f"{row[0]:28}", *filter(None, row[1:]))))
        for finding in findings:
            print(f"{finding.verdict:5}  {finding.subject}: {finding.sentence}")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if settings:
        table = Table("setting", "value", box=box.SIMPLE_HEAD)
        for row in settings:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
    table = Table("", "what", "finding", box=box.SIMPLE_HEAD)
    for finding in findings:
        table.add_row(Text(finding.verdict, COLOURS[finding.verdict]), Text(finding.subject), Text(finding.sentence))
    console.print(table)
