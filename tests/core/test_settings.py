"""Settings: a wrong one stops the start with one line each, and no line shows a secret (SS4, SS5)."""

from pathlib import Path

import pytest

from app.core.sealing import KeyRing
from app.runtime import load_key_ring, load_sealing_keys, load_signing_keys
from app.settings import SECRET, Settings, SettingsError, base_path_of, load, load_url, variable


def problems_of(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ, env_file=None)
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


def test_nothing_set_is_development_on_an_embedded_database() -> None:
    settings = load({}, env_file=None)
    assert settings.is_embedded
    assert settings.is_development
    assert settings.registration == "open"


def test_a_database_url_means_production_and_needs_keys() -> None:
    assert [problem.split(":")[0] for problem in problems_of(HUB_DATABASE_URL="postgresql://u:p@h/db")] == [
        "HUB_SECRET_KEYS",
        "HUB_SIGNING_KEYS_FILE",
    ]


def test_production_keeps_registration_closed(tmp_path: Path) -> None:
    keys = tmp_path / "keys.pem"
    keys.touch()
    settings = load(
        {"HUB_ENV": "production", "HUB_SECRET_KEYS": KeyRing.generate(), "HUB_SIGNING_KEYS_FILE": str(keys)},
        env_file=None,
    )
    assert settings.registration == "closed"


@pytest.mark.parametrize(
    "name", ["HUB_DATABSE_URL", "HUB_", "HUB_log_level", "HUB_OIDC_X", "HUB_PASSWORD_MIN_LENGHT", "HUB_SAML__URL"]
)
def test_an_unknown_name_is_named(name: str) -> None:
    assert problems_of(**{name: "1"})[0].startswith(f"{name}: is not a setting")


def test_a_near_miss_gets_a_suggestion() -> None:
    assert "did you mean HUB_POOL_SIZE?" in problems_of(HUB_POOLSIZE="3")[0]


def test_what_resembles_nothing_gets_no_suggestion() -> None:
    assert "did you mean" not in problems_of(HUB_PROT="1")[0]


@pytest.mark.parametrize("option", ["host", "port"])
def test_an_option_given_as_a_setting_is_named_as_one(option: str) -> None:
    assert f"serve --{option}` takes it" in problems_of(**{f"HUB_{option.upper()}": "8123"})[0]


def test_names_of_others_are_none_of_ours() -> None:
    assert load({"PATH": "x", "GITHUB_TOKEN": "y", "HUBBLE": "z"}, env_file=None) == load({}, env_file=None)


def test_providers_are_kept_as_given() -> None:
    given = {
        "HUB_OIDC_ACME_ISSUER": "https://login.acme.example.org",
        "HUB_OIDC_ACME_CLIENT_ID": "hub",
        "HUB_OIDC_ACME_CLIENT_SECRET": "sesame",
    }
    assert load(given, env_file=None).identity_providers == given


WRONG = {
    "HUB_ENV": ["staging", "Production"],
    "HUB_POOL_SIZE": ["0", "-1", "1e3", "ten", "999", "5.5"],
    "HUB_REQUEST_TIMEOUT_S": ["0", "nan", "inf", "-inf", "forever"],
    "HUB_PASSWORD_MIN_LENGTH": ["7", "129"],
    "HUB_MAX_BODY_BYTES": ["0", "1kb"],
    "HUB_REQUIRE_IF_MATCH": ["maybe", "2"],
    "HUB_LOG_LEVEL": ["verbose", "INFO"],
    "HUB_ALLOWED_HOSTS": ["*", "https://hub.example.org", "hub.example.org:8000", "hub.*", "a b", "hub.example.org,/"],
    "HUB_CORS_ORIGINS": ["*", "https://*.example.org", "https://a.org/", "example.org", "null", "https://ok.org,*"],
    "HUB_TRUSTED_PROXIES": ["10.0.0.0/33", "proxy.local", "10.0.0.1/8"],
    "HUB_EGRESS_DENY": ["10.0.0.0/99", "http://x"],
    "HUB_DATABASE_URL": ["mysql://x:secret@h/db", "sqlite:///x", "h:5432/db"],
    "HUB_PUBLIC_URL": ["hub.example.org", "https://x?y", "https://x#y", "ftp://x"],
    "HUB_METRICS_PORT": [
        "0",
        "65536",
        "metrics",
        ":9100",
        "a b:9100",
        "http://x:9100",
        "::1",
        "10.0.0.5:",
        "9100/metrics",
    ],
    "HUB_OTLP_ENDPOINT": [
        "collector:4318",
        "grpc://collector:4317",
        "http://u:p@collector:4318",
        "http://x/?y",
        "http://",
    ],
    "HUB_RATE_LIMIT": ["0/minute", "5/fortnight", "5", "-5/minute"],
    "HUB_SECRET_KEYS": ["k1", "k1:short", "k1:" + "A" * 44, "k1:====", ",", ":" + "A" * 43 + "="],
    "HUB_SIGNING_KEYS_FILE": ["/nowhere/at/all", "/tmp"],
    "HUB_SEALING_KEYS_FILE": ["/nowhere/at/all", "/tmp"],
    "HUB_AUDIT_DAYS": ["-1", "1", "29", "36501", "90 days"],
    "HUB_AUDIT_ANCHOR": ["gs://bucket", "s3://", "s3:///prefix", "https://s3.example.org/bucket"],
    "HUB_ADMIN_EMAIL": ["nobody", "a b@c"],
    "HUB_ADMIN_PASSWORD": ["without an address of theirs"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_stops_the_start_and_names_itself(name: str, value: str) -> None:
    lines = problems_of(**{"HUB_ENV": "development", name: value})
    assert any(name in line or "HUB_ADMIN" in line for line in lines)
    if name.removeprefix("HUB_").lower() in SECRET:
        assert not any(value in line for line in lines if value != ",")


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("9100", ("127.0.0.1", 9100)),
        ("0.0.0.0:9100", ("0.0.0.0", 9100)),
        ("metrics.example.org:80", ("metrics.example.org", 80)),
        ("[::1]:9100", ("::1", 9100)),
    ],
)
def test_the_port_for_metrics_is_on_loopback_unless_an_address_is_given(given: str, address: tuple[str, int]) -> None:
    assert load({"HUB_METRICS_PORT": given}, env_file=None).metrics_address == address
    assert load({}, env_file=None).metrics_address is None


def test_traces_without_the_extra_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"HUB_OTLP_ENDPOINT": "http://collector:4318"}
    assert load(given, env_file=None).otlp_endpoint == "http://collector:4318"
    monkeypatch.setattr("app.settings.find_spec", lambda name: None)
    assert "install data-fusion-hub[otel]" in problems_of(**given)[0]


def test_traces_with_half_of_the_extra_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may have brought a part of OpenTelemetry; to look into a package that is missing is an error."""

    def find_spec(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("app.settings.find_spec", find_spec)
    assert "install data-fusion-hub[otel]" in problems_of(HUB_OTLP_ENDPOINT="http://collector:4318")[0]


def test_all_faults_are_named_at_once() -> None:
    assert len(problems_of(HUB_POOL_SIZE="x", HUB_ENV="y", HUB_TYPO="z")) == 3


@pytest.mark.parametrize("field", sorted(SECRET))
def test_secret_settings_are_settings(field: str) -> None:
    assert field in Settings.__struct_fields__
    assert variable(field) == f"HUB_{field.upper()}"


def test_a_file_is_read_and_variables_win(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "# comment\nexport HUB_POOL_SIZE='3'\nHUB_LOG_LEVEL=\"debug\"\nOTHER=1\n\nHUB_PUBLIC_URL=https://a.org/x=y\n"
    )
    settings = load({"HUB_POOL_SIZE": "4"}, env_file=path)
    assert (settings.pool_size, settings.log_level, settings.public_url) == (4, "debug", "https://a.org/x=y")


@pytest.mark.found("U9")
@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://hub.example.org", ""),
        ("https://hub.example.org/", ""),
        ("https://example.org/hub", "/hub"),
        ("https://example.org/hub/", "/hub"),
        ("http://10.0.0.7:8443/data/hub-1", "/data/hub-1"),
    ],
)
def test_the_path_of_the_public_url_is_where_everything_is(url: str, path: str) -> None:
    assert load({"HUB_PUBLIC_URL": url}, env_file=None).base_path == path
    assert base_path_of(load_url({"HUB_PUBLIC_URL": url}, env_file=None)) == path


@pytest.mark.found("U9")
@pytest.mark.parametrize(
    "url",
    ["hub.example.org", "https://a.org//x", "https://a.org/x?y", "https://a.org/'x", "https://a.org/<b>", "https://"],
)
def test_a_public_url_that_no_page_could_name_is_refused(url: str) -> None:
    assert problems_of(HUB_PUBLIC_URL=url)[0].startswith("HUB_PUBLIC_URL: ")
    with pytest.raises(SettingsError):
        load_url({"HUB_PUBLIC_URL": url}, env_file=None)


def test_an_empty_value_is_no_value() -> None:
    assert load({"HUB_DATABASE_URL": ""}, env_file=None).is_embedded


def test_generated_keys_are_made_once_and_are_nobody_elses(tmp_path: Path) -> None:
    settings = load({"HUB_DATA_DIR": str(tmp_path / "a")}, env_file=None)
    other = load({"HUB_DATA_DIR": str(tmp_path / "b")}, env_file=None)
    assert load_signing_keys(settings)[0].kid == load_signing_keys(settings)[0].kid != load_signing_keys(other)[0].kid
    assert (
        load_key_ring(settings).derive("x") == load_key_ring(settings).derive("x") != load_key_ring(other).derive("x")
    )
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o600}


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"])
def test_a_signing_file_without_a_usable_key_stops_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.pem"
    path.write_text(content)
    with pytest.raises(SettingsError):
        load_signing_keys(load({"HUB_SIGNING_KEYS_FILE": str(path)}, env_file=None))


def production(tmp_path: Path, **variables: str) -> dict[str, str]:
    (tmp_path / "keys.pem").touch()
    keys = {"HUB_SECRET_KEYS": KeyRing.generate(), "HUB_SIGNING_KEYS_FILE": str(tmp_path / "keys.pem")}
    return {"HUB_ENV": "production", **keys, **variables}


@pytest.mark.found("U4")
@pytest.mark.parametrize(
    "entry",
    ["127.0.0.1/32", "127.0.0.0/8", "::1", "::1/128", "localhost", "*.localhost", "::ffff:127.0.0.1", "127.1.2.3"],
)
def test_an_allowance_of_this_machine_needs_its_own_setting_in_production(tmp_path: Path, entry: str) -> None:
    (problem,) = problems_of(**production(tmp_path, HUB_EGRESS_ALLOW=f"10.0.0.0/8,{entry}"))
    assert problem.startswith(f"HUB_EGRESS_ALLOW: `{entry}` is ")
    assert "HUB_EGRESS_LOOPBACK=true" in problem
    opened = load(production(tmp_path, HUB_EGRESS_ALLOW=entry, HUB_EGRESS_LOOPBACK="true"), env_file=None)
    assert opened.egress_loopback
    assert load({"HUB_EGRESS_ALLOW": entry}, env_file=None).egress_loopback


@pytest.mark.found("U4")
@pytest.mark.parametrize(
    "entry", ["169.254.169.254", "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/4", "fe80::/10", "2002::/16", "2001::/32"]
)
def test_an_allowance_of_what_is_never_dialled_stops_the_start_everywhere(tmp_path: Path, entry: str) -> None:
    for environ in (production(tmp_path, HUB_EGRESS_ALLOW=entry), {"HUB_EGRESS_ALLOW": entry}):
        (problem,) = problems_of(**environ)
        assert "never dialled" in problem


@pytest.mark.parametrize(
    "entry", ["0.0.0.0/0", "::/0", "10.0.0.0/8", "fd00::/8", "db.internal", "*.example.org", "8.8.8.8"]
)
def test_allowances_that_open_something_are_taken(tmp_path: Path, entry: str) -> None:
    assert load(production(tmp_path, HUB_EGRESS_ALLOW=entry), env_file=None).egress_allow == (entry,)


@pytest.mark.parametrize("entry", ["a..b", "*", "*.*.example.org", "10.0.0.0/33", "http://x", "-x-.example"])
def test_what_is_no_allowance_is_one_line(entry: str) -> None:
    (problem,) = problems_of(HUB_EGRESS_ALLOW=entry)
    assert problem.startswith(f"HUB_EGRESS_ALLOW: `{entry}` is neither")


def test_loopback_is_dialled_where_it_is_said(tmp_path: Path) -> None:
    assert load({}, env_file=None).egress_loopback
    assert not load(production(tmp_path), env_file=None).egress_loopback
    assert not load({"HUB_EGRESS_LOOPBACK": "false"}, env_file=None).egress_loopback


@pytest.mark.found("U1")
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"HUB_FILES_ROOT": "/"}, "HUB_DATA_DIR"),
        ({"HUB_FILES_ROOT": "/srv/hub", "HUB_DATA_DIR": "/srv/hub"}, "HUB_DATA_DIR"),
        ({"HUB_FILES_ROOT": "/srv/x/..", "HUB_DATA_DIR": "/srv/hub"}, "HUB_DATA_DIR"),
    ],
)
def test_a_folder_for_sources_that_holds_the_hubs_own_files_stops_the_start(
    variables: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(variables, env_file=None)
    assert any("HUB_FILES_ROOT" in problem and named in problem for problem in caught.value.problems)


@pytest.mark.found("U1")
def test_a_folder_for_sources_that_holds_the_signing_keys_stops_the_start(tmp_path: Path) -> None:
    keys = tmp_path / "a.pem"
    keys.write_bytes(b"x")
    with pytest.raises(SettingsError) as caught:
        load({"HUB_FILES_ROOT": str(tmp_path), "HUB_SIGNING_KEYS_FILE": str(keys)}, env_file=None)
    assert any("HUB_SIGNING_KEYS_FILE" in problem for problem in caught.value.problems)


@pytest.mark.found("U1")
@pytest.mark.parametrize("root", ["hub/postgres", "hub/postgres/base", "elsewhere", "elsewhere/hub/pg_wal", "link"])
def test_a_folder_for_sources_in_or_around_the_embedded_database_stops_the_start(tmp_path: Path, root: str) -> None:
    """Wherever a link in the hub's folder leads."""
    (tmp_path / "elsewhere/hub/pg_wal").mkdir(parents=True)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/postgres").symlink_to(tmp_path / "elsewhere/hub")
    (tmp_path / "link").symlink_to(tmp_path / "hub/postgres")
    with pytest.raises(SettingsError) as caught:
        load({"HUB_FILES_ROOT": str(tmp_path / root), "HUB_DATA_DIR": str(tmp_path / "hub")}, env_file=None)
    assert any("HUB_FILES_ROOT" in problem for problem in caught.value.problems)


def test_a_folder_beside_the_hubs_own_files_is_taken() -> None:
    load({"HUB_DATA_DIR": "/srv/hub", "HUB_FILES_ROOT": "/srv/hub/files"}, env_file=None)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"HUB_BROKER_URL": "stomp://"}, "HUB_BROKER_URL: stomp://user:password@host:61613 is wanted"),
        ({"HUB_BROKER_URL": "stomp://host:port"}, "HUB_BROKER_URL: stomp://user:password@host:61613 is wanted"),
        ({"HUB_BROKER_URL": "http://host"}, "HUB_BROKER_URL: stomp://user:password@host:61613 is wanted"),
        ({"HUB_BROKER_DESTINATION": "/topic/{data}"}, "HUB_BROKER_DESTINATION: a name such as"),
        ({"HUB_BROKER_DESTINATION": "/topic/a,/topic/b"}, "HUB_BROKER_DESTINATION: a name such as"),
        ({"HUB_BROKER_CA_FILE": "/nowhere/ca.pem"}, "HUB_BROKER_CA_FILE: there is no such file"),
        ({"HUB_EVENTS_REDIS_STREAM": "events"}, "HUB_REDIS_URL: is needed where HUB_EVENTS_REDIS_STREAM is set"),
        ({"HUB_EVENTS_REDIS_LENGTH": "10"}, "HUB_EVENTS_REDIS_LENGTH: a number from 1000"),
    ],
)
def test_where_events_go_is_looked_at_before_the_start(given: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(given, env_file=None)
    assert [line[: len(problem)] for line in caught.value.problems] == [problem]


def test_a_key_to_seal_with_is_of_ed25519_and_given_in_production(tmp_path: Path) -> None:
    """Whoever only serves needs none: the settings alone do not ask for it."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = tmp_path / "p256.pem"
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key.write_bytes(pem)
    with pytest.raises(SettingsError, match="is not of Ed25519"):
        load_sealing_keys(load({"HUB_SEALING_KEYS_FILE": str(key)}, env_file=None))
    given = {"HUB_SECRET_KEYS": KeyRing.generate().encode().decode(), "HUB_SIGNING_KEYS_FILE": str(key)}
    with pytest.raises(SettingsError, match="HUB_SEALING_KEYS_FILE: is needed in production"):
        load_sealing_keys(load({"HUB_ENV": "production", **given}, env_file=None))
    made = load({"HUB_DATA_DIR": str(tmp_path)}, env_file=None)
    assert load_sealing_keys(made)[0].kid == load_sealing_keys(made)[0].kid != load_signing_keys(made)[0].kid


# --- mail ---


def test_mail_needs_a_sender() -> None:
    assert problems_of(HUB_SMTP_URL="smtp://mail.example.org") == ["HUB_SMTP_FROM: is needed where HUB_SMTP_URL is set"]


@pytest.mark.parametrize("url", ["http://mail.example.org", "smtp://h?tls=maybe", "smtps://h?tls=none", "smtp://"])
def test_a_mail_server_that_is_none_is_named_without_its_password(url: str) -> None:
    (problem,) = problems_of(HUB_SMTP_URL=url.replace("://", "://hub:hunter22@", 1), HUB_SMTP_FROM="hub@example.org")
    assert problem.startswith("HUB_SMTP_URL: ")
    assert "hunter22" not in problem


@pytest.mark.parametrize(
    "sender", ["hub", "hub@", "@example.org", "Hub <hub>", "hub@example.org\r\nBcc: x@y.org", "a@b c"]
)
def test_a_sender_that_is_no_address_is_refused(sender: str) -> None:
    assert problems_of(HUB_SMTP_FROM=sender)[0].startswith("HUB_SMTP_FROM: ")


@pytest.mark.parametrize("sender", ["hub@example.org", "Data Fusion Hub <hub@example.org>", "Büro <hub@example.org>"])
def test_a_sender_may_have_a_name(sender: str) -> None:
    assert load({"HUB_SMTP_FROM": sender}, env_file=None).smtp_from == sender


def test_mail_without_tls_is_for_development_and_this_machine(tmp_path: Path) -> None:
    keys = tmp_path / "keys.pem"
    keys.touch()
    production = {"HUB_ENV": "production", "HUB_SECRET_KEYS": KeyRing.generate(), "HUB_SIGNING_KEYS_FILE": str(keys)}
    bare = {"HUB_SMTP_URL": "smtp://mail.example.org?tls=none", "HUB_SMTP_FROM": "hub@example.org"}
    assert [problem.split(":")[0] for problem in problems_of(**production, **bare)] == ["HUB_SMTP_URL"]
    assert load(bare, env_file=None).smtp_url
    here = {"HUB_SMTP_URL": "smtp://127.0.0.1:25?tls=none", "HUB_SMTP_FROM": "hub@example.org"}
    assert load({**production, **here}, env_file=None).smtp_url


def test_the_mail_servers_password_is_a_secret() -> None:
    assert "smtp_url" in SECRET
