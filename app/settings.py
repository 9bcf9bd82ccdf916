"""Every setting of the hub: one frozen Struct, read once from `HUB_*` variables and an optional `.env` file.

A name that is not known or a value that does not fit stops the start, each with one line (`SettingsError.problems`).
"""

import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from app.core.invocation import HUB
from app.core.provider_settings import VARIABLE as PROVIDER_PATTERN
from app.core.provider_settings import ConfiguredProvider, parse_providers

Environment = Literal["development", "production"]

Values = dict[str, Any]
"""By field, before they are Settings."""
DEFAULT_URL = "http://127.0.0.1:8000"


class SettingsError(Exception):
    """The start is refused. `problems` holds one line for each fault."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Settings(Struct, frozen=True, kw_only=True):
    data_dir: Path = Path(".hub")
    """Embedded PostgreSQL and generated keys."""
    database_url: str | None = None
    """PostgreSQL 15 or newer, as the application role; unset: the embedded one."""
    owner_database_url: str | None = None
    """The same database as the role that owns the tables and migrates; unset: `database_url`."""
    env: Environment = "development"
    secret_keys: str | None = None
    signing_keys_file: Path | None = None
    sealing_keys_file: Path | None = None
    """Of workers: what the audit log is sealed with."""
    admin_email: str | None = None
    admin_password: str | None = None
    registration: Literal["open", "closed"] = "open"
    password_min_length: int = 15
    redis_url: str | None = None
    """Limits are counted there for all processes together; unset: each counts for itself."""
    broker_url: str | None = None
    broker_ca_file: Path | None = None
    """Of the authority that signed the broker's certificate; unset: those that the system trusts."""
    broker_destination: str = "/topic/hub.{tenant}.{type}"
    """Where an event goes, by its tenant's slug and its type."""
    events_redis_stream: str | None = None
    """The stream in HUB_REDIS_URL that events go to as well."""
    events_redis_length: int = 100_000
    """About so many entries stay in that stream."""
    smtp_url: str | None = None
    """`smtp://user:password@host:587`, or `smtps://`; unset: the hub sends no mail."""
    smtp_from: str | None = None
    """What letters come from: an address, or `Name <address>`."""
    smtp_ca_file: Path | None = None
    """Of the authority that signed the mail server's certificate; unset: those that the system trusts."""
    egress_allow: tuple[str, ...] = ()
    egress_deny: tuple[str, ...] = ()
    egress_loopback: bool = True
    """Whether data sources may be on this machine: for development, and where everything runs on one machine."""
    egress_proxy: str | None = None
    """`http://user:password@host:port`: an HTTP proxy through which all goes out to data sources and webhooks."""
    egress_direct: tuple[str, ...] = ()
    """Hosts and ranges that are dialled all the same; they are judged like any other."""
    files_root: Path = Path(".hub/files")
    secret_env_prefixes: tuple[str, ...] = ()
    """Beginnings of the variables that a data source's secret may refer to; empty: none."""
    secret_files_root: Path | None = None
    """Folder of the files that a data source's secret may refer to; unset: none."""
    trusted_proxies: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    tenant_hosts: tuple[str, ...] = ()
    """`acme.example.org=acme`: whoever signs in or registers by that host name means that tenant."""
    cors_origins: tuple[str, ...] = ()
    rate_limit: str = "600/minute"
    """Units of a principal, and of an address for what is open: a read takes 1, a write 2, a connector run 10."""
    login_rate_limit: str = "20/minute"
    """Sign-ins from an address, and of an account."""
    log_format: Literal["console", "json"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_port: str | None = None
    """`9100`, or `host:port`: where `/metrics` is answered without a token. Unset: on the API's port alone."""
    otlp_endpoint: str | None = None
    """Where traces are sent by OTLP over HTTP, without `/v1/traces`. Unset: there are none."""
    public_url: str | None = None
    """What clients call the hub: the `iss` of its tokens, and by its path where everything is for them. Unset: where
    `hub serve` listens."""
    request_timeout_s: float = 30.0
    max_body_bytes: int = 1_048_576
    workers: int = 1
    """Server processes of `hub serve`, unless `--workers` says otherwise."""
    pool_size: int = 8
    """Connections of each of a process' two pools (changes, and fast reads)."""
    request_days: int = 14
    """Until a role request on which nobody has decided expires."""
    require_if_match: bool = False
    jobs_at_once: int = 4
    """Jobs, such as discoveries, that a worker runs at the same time."""
    jobs_at_once_per_host: int = 2
    tests_at_once: int = 32
    """Scheduled tests that a worker runs at the same time, each in a process of its own."""
    tests_at_once_per_host: int = 4
    audit_days: int = 0
    """Rows of the audit log are kept for so long after they were sealed; 0: for ever."""
    audit_anchor: str | None = None
    """Folder, or `s3://bucket/prefix`, to which each seal is copied; unset: nowhere."""
    history_days: int = 90
    """Results of tests, ended jobs and events are kept for so long."""
    sign_in_redirects: tuple[str, ...] = ()
    """Pages of other programs at which a sign-in by an identity provider may end."""
    identity_providers: Mapping[str, str] = {}
    """HUB_OIDC_<NAME>_* and HUB_SAML_<NAME>_* as given."""

    @property
    def connections_of_process(self) -> int:
        """To the database, at most, of a server or a worker: two pools, a listener, and a probe or another
        listener; of a worker also one of each relay."""
        return 2 * self.pool_size + 2 + (self.broker_url is not None) + (self.events_redis_stream is not None)

    @property
    def url(self) -> str:
        """Where clients find the hub. `hub serve` sets it to where it listens, where nobody said anything else."""
        return self.public_url or DEFAULT_URL

    @property
    def base_path(self) -> str:
        """The path of the public URL, under which everything is for clients: empty, or such as `/hub`."""
        return base_path_of(self.url)

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Loopback where the setting is a port only."""
        if self.metrics_port is None:
            return None
        host, _, port = self.metrics_port.rpartition(":")
        return host.strip("[]") or "127.0.0.1", int(port)

    @property
    def slug_by_host(self) -> Mapping[str, str]:
        return _slug_by_host(self.tenant_hosts)

    @property
    def providers(self) -> tuple[ConfiguredProvider, ...]:
        """`identity_providers`, read."""
        return _providers(tuple(self.identity_providers.items()), self.is_development)

    @property
    def is_embedded(self) -> bool:
        return self.database_url is None

    @property
    def is_development(self) -> bool:
        return self.env == "development"


@cache
def _slug_by_host(entries: tuple[str, ...]) -> Mapping[str, str]:
    pairs = (entry.split("=") for entry in entries)
    return {host.lower(): slug for host, slug in pairs}


@cache
def _providers(given: tuple[tuple[str, str], ...], is_development: bool) -> tuple[ConfiguredProvider, ...]:
    return parse_providers(dict(given), is_development=is_development)[0]


def base_path_of(url: str) -> str:
    return urlsplit(url).path.rstrip("/")


SECRET = frozenset(
    {
        "database_url",
        "owner_database_url",
        "secret_keys",
        "admin_password",
        "redis_url",
        "broker_url",
        "egress_proxy",
        "smtp_url",
    }
)
"""Shown by `hub check` as set or not set, never as a value."""


def variable(field: str) -> str:
    return f"HUB_{field.upper()}"


def load(
    environ: Mapping[str, str] | None = None, *, env_file: Path | None = Path(".env"), tty: bool = False
) -> Settings:
    """Read the settings. Variables win over the file. Raises SettingsError naming every fault at once."""
    given = _given(environ, env_file)
    problems: list[str] = []
    values = _defaults(given, tty=tty)
    values["identity_providers"] = {name: value for name, value in given.items() if PROVIDER_PATTERN.fullmatch(name)}
    known = {variable(field): field for field in Settings.__struct_fields__ if field != "identity_providers"}
    for name, text in given.items():
        if name in values["identity_providers"]:
            continue
        if name not in known:
            problems.append(_unknown(name, known))
            continue
        try:
            values[known[name]] = _value(known[name], text)
        except (ValueError, msgspec.ValidationError) as error:
            problems.append(f"{name}: {error}")
    problems += parse_providers(values["identity_providers"], is_development=values["env"] == "development")[1]
    problems += _contradictions(values) if not problems else []
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def load_url(environ: Mapping[str, str] | None = None, *, env_file: Path | None = Path(".env")) -> str:
    """`Settings.url` alone, for who describes a hub that may have no other settings here. Raises SettingsError."""
    text = _given(environ, env_file).get(variable("public_url"), DEFAULT_URL)
    try:
        return str(_value("public_url", text))
    except ValueError as error:
        raise SettingsError([f"{variable('public_url')}: {error}"]) from None


def _given(environ: Mapping[str, str] | None, env_file: Path | None) -> dict[str, str]:
    """The hub's variables that hold something."""
    given = {**_read_env_file(env_file), **(os.environ if environ is None else environ)}
    return {name: value for name, value in given.items() if name.startswith("HUB_") and value != ""}


def _defaults(given: Mapping[str, str], *, tty: bool) -> Values:
    """The defaults that hang on other settings."""
    env = given.get("HUB_ENV", "production" if "HUB_DATABASE_URL" in given else "development")
    return {
        "env": env,
        "registration": "closed" if env == "production" else "open",
        "egress_loopback": env != "production",
        "files_root": Path(given.get("HUB_DATA_DIR", ".hub")) / "files",
        "log_format": "console" if tty else "json",
    }


def _contradictions(values: Values) -> list[str]:
    problems = []
    if values["env"] == "production":
        missing = [variable(name) for name in ("secret_keys", "signing_keys_file") if values.get(name) is None]
        problems += [
            f"{name}: is needed in production; `{HUB} keys generate` prints how to make one" for name in missing
        ]
    if values.get("admin_password") and not values.get("admin_email"):
        problems.append("HUB_ADMIN_EMAIL: is needed where HUB_ADMIN_PASSWORD is set")
    if values.get("smtp_url") and not values.get("smtp_from"):
        problems.append("HUB_SMTP_FROM: is needed where HUB_SMTP_URL is set")
    if values.get("smtp_url") and values["env"] == "production" and _is_exposed(values["smtp_url"]):
        problems.append("HUB_SMTP_URL: `tls=none` is for development, or a server on this machine")
    if values.get("events_redis_stream") and not values.get("redis_url"):
        problems.append("HUB_REDIS_URL: is needed where HUB_EVENTS_REDIS_STREAM is set")
    exposed = [*_exposed_data(values), *_exposed_secrets(values)]
    return problems + exposed + list(_idle_allowances(values)) + list(_unreachable_tenants(values))


def _exposed_data(values: Values) -> Iterator[str]:
    """The hub's own files are no source: whoever may preview sources would read its keys and its database there."""
    root, data_dir = Path(values["files_root"]).resolve(), values.get("data_dir", Path(".hub"))
    own: dict[str, Path | None] = {"data_dir": data_dir}
    own |= {field: values.get(field) for field in ("signing_keys_file", "sealing_keys_file")}
    exposed = [field for field, path in own.items() if path is not None and path.resolve().is_relative_to(root)]
    for field in exposed:
        yield f"HUB_FILES_ROOT: the hub's own files lie in it ({variable(field)}); choose a folder of its own"
    cluster = (data_dir / "postgres").resolve()  # Where the hub is root, a link to another place.
    if not exposed and (root.is_relative_to(cluster) or cluster.is_relative_to(root)):
        yield f"HUB_FILES_ROOT: the hub's own database lies there ({cluster}); choose a folder of its own"


def _idle_allowances(values: Values) -> Iterator[str]:
    """What HUB_EGRESS_ALLOW cannot open would be believed to be open."""
    from app.core.egress import closed_whole

    for entry in values.get("egress_allow", ()):
        address_class, phrase = closed_whole(entry) or ("", "")
        if address_class == "never":
            yield f"HUB_EGRESS_ALLOW: `{entry}` is {phrase}, which is never dialled, whatever is allowed"
        elif address_class == "loopback" and not values["egress_loopback"]:
            yield f"HUB_EGRESS_ALLOW: `{entry}` is {phrase}; HUB_EGRESS_LOOPBACK=true opens this machine"


def _unreachable_tenants(values: Values) -> Iterator[str]:
    """A host that the hub does not answer to names no tenant."""
    allowed = [pattern.lower() for pattern in values.get("allowed_hosts", ())]
    for host in _slug_by_host(values.get("tenant_hosts", ())) if allowed else ():
        if not any(host.endswith(each[1:]) if each.startswith("*.") else host == each for each in allowed):
            yield f"HUB_TENANT_HOSTS: the hub does not answer to {host}; add it to HUB_ALLOWED_HOSTS"


def _exposed_secrets(values: Values) -> Iterator[str]:
    """The folder for secrets holds no keys of the hub's own, and is no folder that a file source shows."""
    if (secrets := values.get("secret_files_root")) is None:
        return
    for name, holds in (("data_dir", "the hub's own keys"), ("files_root", "what file sources may show")):
        one, other = secrets.resolve(), values.get(name, Settings().data_dir).resolve()
        if one.is_relative_to(other) or other.is_relative_to(one):
            yield f"HUB_SECRET_FILES_ROOT: must be apart from {variable(name)}, which has {holds}"


def _unknown(name: str, known: Mapping[str, str]) -> str:
    """What all names begin with makes none of them alike."""
    if name in {"HUB_HOST", "HUB_PORT"}:
        return f"{name}: is not a setting of the hub; `{HUB} serve --{name[4:].lower()}` takes it"
    if name.startswith(("HUB_OIDC_", "HUB_SAML_")):
        return f"{name}: is not a setting of the hub; {name[:9]}<NAME>_... are, with a name of capitals and digits"
    near = get_close_matches(name.removeprefix("HUB_"), [each.removeprefix("HUB_") for each in known], n=1)
    return f"{name}: is not a setting of the hub" + (f"; did you mean HUB_{near[0]}?" if near else "")


def _value(field: str, text: str) -> object:
    annotation = typing.get_type_hints(Settings)[field]
    if annotation == tuple[str, ...]:
        value: object = tuple(part.strip() for part in text.split(",") if part.strip())
    elif annotation in (Path, Path | None):
        value = Path(text).expanduser()
    elif annotation is bool:
        value = _boolean(text)
    else:
        value = _plain(text, annotation)
    CHECKS.get(field, lambda _: None)(value)
    return value


def _plain(text: str, annotation: object) -> object:
    try:
        return msgspec.convert(text, annotation, strict=False)
    except msgspec.ValidationError:
        raise ValueError(f"{_wanted(annotation)} is wanted") from None


def _wanted(annotation: object) -> str:
    if typing.get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    return "a whole number" if annotation is int else "a number"


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
        raise ValueError("`true` or `false` is wanted")
    return text.lower() in {"true", "1", "yes"}


def _within(low: float, high: float) -> Callable[[float], None]:
    def check(value: float) -> None:
        if not low <= value <= high:
            raise ValueError(f"a number from {low:.15g} to {high:.15g} is wanted")

    return check


def _matching(pattern: str, wanted: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{wanted} is wanted")

    return check


def _prefixes(values: tuple[str, ...]) -> None:
    for value in values:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError(f"`{value}` is not the beginning of a variable's name, such as SHOP_")


def _networks(values: tuple[str, ...]) -> None:
    for value in values:
        try:
            ip_network(value)
        except ValueError:
            raise ValueError(f"`{value}` is not an address or a CIDR range such as 10.0.0.0/8") from None


def _host_names(values: tuple[str, ...]) -> None:
    for value in values:
        if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9a-fA-F:.]+\]", value):
            raise ValueError(f"`{value}` is not a host name such as hub.example.org, without scheme and port")


def _tenant_hosts(values: tuple[str, ...]) -> None:
    for value in values:
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*=[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
            raise ValueError(f"`{value}` is not a host name and a tenant's slug such as acme.example.org=acme")
    hosts = [value.partition("=")[0].lower() for value in values]
    if len(hosts) != len(set(hosts)):
        raise ValueError("a host names one tenant")


def _origins(values: tuple[str, ...]) -> None:
    for value in values:
        if not re.fullmatch(r"https?://[^/*\s]+", value):
            raise ValueError(f"`{value}` is not an origin such as https://app.example.org (`*` is never allowed)")


def _pages(values: tuple[str, ...]) -> None:
    for value in values:
        is_loopback = re.match(r"http://(127\.0\.0\.1|\[::1\]|localhost)[:/]", value) is not None
        if not re.fullmatch(r"https?://[^\s/?#*\\@]+/[^\s#*\\]*", value) or not (
            is_loopback or value.startswith("https:")
        ):
            raise ValueError(f"`{value}` is not the address of a page such as https://app.example.org/signed-in")


def _egress(values: tuple[str, ...]) -> None:
    from app.core.egress import EgressPolicy

    EgressPolicy(allow=values)


def _egress_proxy(value: str) -> None:
    from app.core.tunnels import EgressProxy

    EgressProxy.parse(value)


def _key_ring(value: str) -> None:
    from app.core.sealing import KeyRing

    KeyRing.parse(value)


def _existing_file(value: Path) -> None:
    if not value.is_file():
        raise ValueError("there is no such file")


def _audit_days(value: int) -> None:
    if value != 0 and not 30 <= value <= 36_500:
        raise ValueError("0, for ever, or a number from 30 to 36500 is wanted")


def _broker(value: str) -> None:
    try:
        parts = urlsplit(value)
        is_fit = bool(parts.hostname) and parts.port != 0 and parts.path in {"", "/"} and not parts.query
    except ValueError:
        is_fit = False
    if not is_fit or not re.fullmatch(r"stomps?://\S+", value):
        raise ValueError("stomp://user:password@host:61613 is wanted")


def _smtp(value: str) -> None:
    from app.core.mail import SmtpServer

    SmtpServer.parse(value)


def _is_exposed(value: str) -> bool:
    from app.core.mail import SmtpServer

    return SmtpServer.parse(value).is_exposed


def _sender(value: str) -> None:
    from email.errors import MessageError
    from email.headerregistry import Address
    from email.utils import parseaddr

    name, address = parseaddr(value)
    is_plain = value.isprintable() and address.isascii() and value.rstrip(">").endswith(address)
    try:
        is_fit = is_plain and bool(Address(display_name=name, addr_spec=address).domain)
    except (ValueError, IndexError, MessageError):
        is_fit = False
    if not is_fit or not re.fullmatch(r"[^@\s]+@[^@\s]+", address):
        raise ValueError("an address such as hub@example.org, or `Data Fusion Hub <hub@example.org>`, is wanted")


def _redis(value: str) -> None:
    _matching(r"rediss?://\S+", "redis://host:port/0")(value)
    if not _is_installed("redis"):
        raise ValueError("needs the package `redis`: install data-fusion-hub[redis]")


def _metrics_port(value: str) -> None:
    host, separator, port = value.rpartition(":")
    named = re.fullmatch(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+", host) if separator else True
    if not named or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise ValueError("a port such as 9100, or an address and a port such as 10.0.0.5:9100, is wanted")


def _is_installed(module: str) -> bool:
    """Of one within a package, too: there `find_spec` raises where the package is missing."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _otlp_endpoint(value: str) -> None:
    """Without a user and password: those have a variable of OpenTelemetry's own."""
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
        raise ValueError("an address such as http://collector:4318 is wanted")
    if not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        raise ValueError("traces need the extra `otel`: install data-fusion-hub[otel]")


_database = _matching(r"postgres(ql)?://\S+", "postgresql://user:password@host:port/database")
_rate = _matching(r"[1-9]\d{0,8}/(second|minute|hour|day)", "a rate such as 600/minute")
CHECKS: dict[str, Callable[[Any], None]] = {
    "database_url": _database,
    "owner_database_url": _database,
    "secret_keys": _key_ring,
    "signing_keys_file": _existing_file,
    "sealing_keys_file": _existing_file,
    "audit_days": _audit_days,
    "audit_anchor": _matching(r"s3://[a-z0-9][a-z0-9.-]+(/.*)?|(?!\w+://).+", "a folder, or s3://bucket/prefix"),
    "admin_email": _matching(r"[^@\s]+@[^@\s]+", "an email address"),
    "password_min_length": _within(8, 128),
    "redis_url": _redis,
    "broker_url": _broker,
    "broker_ca_file": _existing_file,
    "broker_destination": _matching(
        r"/(topic|queue)/([A-Za-z0-9_.:-]|\{tenant\}|\{type\})+", "a name such as /topic/hub.{tenant}.{type}"
    ),
    "events_redis_stream": _matching(r"[!-~]{1,200}", "the name of a stream such as hub:events"),
    "events_redis_length": _within(1000, 100_000_000),
    "smtp_url": _smtp,
    "smtp_from": _sender,
    "smtp_ca_file": _existing_file,
    "egress_allow": _egress,
    "egress_deny": _egress,
    "egress_direct": _egress,
    "egress_proxy": _egress_proxy,
    "secret_env_prefixes": _prefixes,
    "trusted_proxies": _networks,
    "allowed_hosts": _host_names,
    "tenant_hosts": _tenant_hosts,
    "cors_origins": _origins,
    "sign_in_redirects": _pages,
    "rate_limit": _rate,
    "login_rate_limit": _rate,
    "metrics_port": _metrics_port,
    "otlp_endpoint": _otlp_endpoint,
    "public_url": _matching(
        r"https?://[^\s/?#\"'<>]+(/[A-Za-z0-9._~%=+@:,-]+)*/?",
        "an address such as https://hub.example.org or https://example.org/hub",
    ),
    "request_timeout_s": _within(1, 600),
    "max_body_bytes": _within(1024, 1_073_741_824),
    "workers": _within(1, 256),
    "pool_size": _within(1, 200),
    "jobs_at_once": _within(1, 8),
    "jobs_at_once_per_host": _within(1, 8),
    "tests_at_once": _within(1, 256),
    "tests_at_once_per_host": _within(1, 256),
    "history_days": _within(1, 3650),
    "request_days": _within(1, 365),
}


def _read_env_file(path: Path | None) -> dict[str, str]:
    """`NAME=value` lines; `#` comments; one pair of quotes around a value is taken off."""
    if path is None or not path.is_file():
        return {}
    pairs: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if separator and not name.startswith("#"):
            pairs[name.strip()] = _unquoted(value.strip())
    return pairs


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
