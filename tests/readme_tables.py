"""What the code knows better than the README: `python -m tests.readme_tables` writes its tables and its example into it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.connectors import registry
from app.core.event_names import SENTENCES
from app.domain.event_types import DATA
from app.settings import Settings, variable

README = Path(__file__).parents[1] / "README.md"
EXAMPLE = Path(__file__).parent / "connectors/example/couchdb.py"
"""The type that the README adds; tests/connectors/test_readme_example.py holds it to the contract."""

MEANINGS = {
    "data_dir": "embedded PostgreSQL and generated keys",
    "database_url": "PostgreSQL 15 or newer, as the application's role; unset: the embedded one",
    "owner_database_url": "the same database as the role that migrates; unset: `HUB_DATABASE_URL`",
    "env": "`development` or `production`: in production keys must be given, and loopback is not dialled unless told",
    "secret_keys": "keys for stored secrets, `id:base64,...`, the first one seals; needed in production",
    "signing_keys_file": "PEM private keys for access tokens (Ed25519, P-256), the first signs; needed in production",
    "sealing_keys_file": "PEM private keys (Ed25519) for the seals of the audit log, the first seals; workers need it in production",
    "admin_email": "the first admin of an empty database",
    "admin_password": "their password; unset: generated and printed once",
    "registration": "`open`: anybody may make an account for themselves; `closed`: nobody",
    "password_min_length": "characters that a new password needs, 8 to 128",
    "redis_url": "where limits are counted for all processes together; unset: each counts for itself",
    "broker_url": "where events are published: `stomp://user:password@host:61613`, with TLS `stomps://`",
    "broker_ca_file": "PEM file of the authority that signed the broker's certificate; unset: those that the system trusts",
    "broker_destination": "topic or queue of an event, by its tenant's slug and its type",
    "events_redis_stream": "name of a stream at `HUB_REDIS_URL` that events are published to as well",
    "events_redis_length": "entries that stay in that stream, about",
    "smtp_url": "the mail server that letters are handed to: `smtp://user:password@host:587`, or `smtps://`; unset: the hub sends no mail",
    "smtp_from": "what letters come from: an address, or `Name <address>`",
    "smtp_ca_file": "PEM file of the authority that signed the mail server's certificate; unset: those that the system trusts",
    "egress_allow": "private addresses that data sources and webhooks may have: CIDR ranges, host names, `*.example.org`",
    "egress_deny": "addresses that are never dialled; wins over every allowance",
    "egress_loopback": "whether data sources and webhooks may be on this machine; for development, and for all on one machine",
    "egress_proxy": "`http://user:password@host:port`, an HTTP proxy through which everything goes out to data sources and webhooks",
    "egress_direct": "what is dialled without that proxy: CIDR ranges, host names, `*.example.org`",
    "files_root": "folder that file sources may read; other tenants than `default`: the folder of their slug in it",
    "secret_env_prefixes": "beginnings of variables that secrets may refer to (`env:SHOP_PASSWORD`); empty: none",
    "secret_files_root": "folder of files that secrets may refer to (`file:shop/password`); unset: none",
    "trusted_proxies": "CIDR ranges whose `X-Forwarded-For` is believed",
    "allowed_hosts": "host names that the hub answers to, `*.example.org` for subdomains; empty: any",
    "tenant_hosts": "host names that name a tenant at sign-in, `acme.example.org=acme`; empty: the body or the address does",
    "cors_origins": "origins of web pages that may call the API; empty: none",
    "rate_limit": "units of a principal, and of an address for what is open: a read 1, a write 2, a connector run 10",
    "login_rate_limit": "sign-ins from an address, and of an account",
    "log_format": "`console` or `json`",
    "log_level": "`debug`, `info`, `warning` or `error`",
    "metrics_port": "`9100` or `10.0.0.5:9100`: where `/metrics` is answered without a token, on loopback unless an address is given; unset: with a token only",
    "otlp_endpoint": "where traces are sent by OTLP over HTTP, such as `http://collector:4318`; needs the extra `otel`; unset: there are none",
    "public_url": "what clients call the hub: the `iss` of its tokens, and by its path where everything is for them",
    "request_timeout_s": "seconds until a request is given up with 503",
    "max_body_bytes": "longest request body",
    "workers": "server processes of `hub serve`",
    "pool_size": "connections of each of a process' two pools; each process has two more, a server another while events are followed, a worker one for each destination of events",
    "jobs_at_once": "jobs (discoveries) that a worker runs at the same time; of one kind, or tenant, three quarters of them",
    "jobs_at_once_per_host": "of them, those about sources of one host",
    "tests_at_once": "scheduled tests that a worker runs at the same time, each in a process of its own",
    "tests_at_once_per_host": "of these, tests of one host",
    "audit_days": "days for which rows of the audit log are kept once they are sealed, 30 at least; `0`: for ever",
    "audit_anchor": "folder or `s3://bucket/prefix` to which each seal is copied; unset: nowhere",
    "history_days": "days for which results of tests, ended jobs and events are kept; events that wait to be published longer",
    "request_days": "days until a role request on which nobody has decided expires",
    "require_if_match": "whether a change without `If-Match` is a 428",
    "sign_in_redirects": "pages of other programs at which a sign-in by an identity provider may end, each exactly",
    "identity_providers": "identity providers by which people sign in, see [there](#sign-in-with-your-identity-provider)",
}
DEPENDENT = {
    "env": "`production` with a database URL, else `development`",
    "registration": "`open` in development, else `closed`",
    "egress_loopback": "`true` in development, else `false`",
    "files_root": "`HUB_DATA_DIR/files`",
    "log_format": "`console` on a terminal, else `json`",
    "public_url": "where `hub serve` listens",
}
"""Defaults that hang on something else."""


def settings_table() -> Iterator[str]:
    yield "| variable | meaning | default |"
    yield "|---|---|---|"
    defaults = Settings()
    for field in Settings.__struct_fields__:
        name = variable(field) if field != "identity_providers" else "HUB_OIDC_<NAME>_*`, `HUB_SAML_<NAME>_*"
        yield f"| `{name}` | {MEANINGS[field]} | {DEPENDENT.get(field) or _shown(getattr(defaults, field))} |"


def _shown(value: Any) -> str:
    if value is None or value == () or value == {}:
        return ""
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{text}`"


def types_table() -> Iterator[str]:
    yield "| type | name | category | what it shows | driver | tested with |"
    yield "|---|---|---|---|---|---|"
    for connector in registry.all():
        if connector.is_rehearsal:
            continue
        driver = f"extra `{connector.extra}`" if connector.extra else "comes with the hub"
        verified = ", ".join(connector.verified_with) or "nothing yet"
        cells = (f"`{connector.type}`", connector.label, connector.category, connector.description, driver, verified)
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _lines(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def example() -> Iterator[str]:
    yield "```python"
    yield from EXAMPLE.read_text(encoding="utf-8").splitlines()
    yield "```"


def events_table() -> Iterator[str]:
    yield "| type (behind `org.datafusionhub.`) | when | data |"
    yield "|---|---|---|"
    for name, data in DATA.items():
        yield f"| `{name}` | {SENTENCES[name]} | `{data.__name__}` |"


TABLES = {"types": types_table, "settings": settings_table, "events": events_table, "example": example}


COUNTED = re.compile(r"\[[a-z-]+ types\]\(#data-source-types\)")
NUMBERS = (
    "no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
TENS = {20: "twenty", 30: "thirty", 40: "forty", 50: "fifty", 60: "sixty", 70: "seventy", 80: "eighty", 90: "ninety"}


def number_of_types() -> str:
    """Those that were proven against something, as a word."""
    count = sum(bool(connector.verified_with) for connector in registry.all())
    words = [*NUMBERS.split(), "eighteen", "nineteen"]
    if count < 20:
        return words[count]
    return TENS[count // 10 * 10] + (f"-{words[count % 10]}" if count % 10 else "")


def with_tables(text: str) -> str:
    """The text with the number of types, and each table and the example between its two marks, as the code has it."""
    text = COUNTED.sub(f"[{number_of_types()} types](#data-source-types)", text)
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: written by `just docs` -->\n", f"<!-- /{name} -->\n"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"README.md has no place for the {name}")
        text = f"{before}{begin}{_lines(table())}{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
