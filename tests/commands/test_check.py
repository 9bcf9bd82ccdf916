"""`hub check`: it tells right from wrong, and makes nothing."""

import json
import re
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from app.connectors.processes.confinement import version
from app.settings import Settings, variable
from tests.commands.hubs import Serve, run
from tests.connectors.servers import connect_proxy
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.connect_proxy import ConnectProxy
from tests.mail_servers import taking_mail
from tests.redis_server import redis_server


def _wrong(said: str) -> list[str]:
    return [line.split(":")[0].split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("wrong")]


def test_a_new_folder_is_fine_and_stays_absent(data_dir: Path) -> None:
    ended = run(data_dir, "check")
    assert ended.returncode == 0, ended.stdout
    assert "would be created at the first start" in ended.stdout
    assert not data_dir.exists()


PROVIDER = {
    "HUB_OIDC_X_ISSUER": "https://login.example.org",
    "HUB_OIDC_X_CLIENT_ID": "hub",
    "HUB_OIDC_X_CLIENT_SECRET": "hunter23",
}


def test_every_setting_is_listed_and_no_secret_shown(data_dir: Path) -> None:
    ended = run(data_dir, "check", HUB_REDIS_URL="redis://:hunter22@127.0.0.1:1/0", **PROVIDER)
    for field in Settings.__struct_fields__:
        assert variable(field) in ended.stdout or field == "identity_providers"
    assert "hunter2" not in ended.stdout
    assert re.search(r"HUB_OIDC_X_CLIENT_SECRET +set\n", ended.stdout)
    assert re.search(r"HUB_OIDC_X_ISSUER +https://login.example.org\n", ended.stdout)


@pytest.mark.slow
def test_limits_of_each_process_are_said_to_be_that(data_dir: Path) -> None:
    ended = run(data_dir, "check", HUB_RATE_LIMIT="50/second")
    assert (
        "right  limits: 50/second for a principal, 20/minute for sign-ins; each server process counts" in ended.stdout
    )


def test_a_redis_that_is_away_is_wrong(data_dir: Path) -> None:
    ended = run(data_dir, "check", HUB_REDIS_URL="redis://127.0.0.1:1/0")
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["limits"])
    assert "Redis does not answer (ConnectionError)" in ended.stdout


@pytest.mark.services
def test_a_redis_that_answers_shares_the_limits(data_dir: Path) -> None:
    with redis_server() as server:
        ended = run(data_dir, "check", HUB_REDIS_URL=server.url)
    assert ended.returncode == 0
    assert "shared over Redis, which answers" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("port", "is_told"), [("9100", False), ("[::1]:9100", False), ("0.0.0.0:9100", True)])
def test_metrics_that_others_can_read_are_told_of(data_dir: Path, port: str, is_told: bool) -> None:
    ended = run(data_dir, "check", HUB_METRICS_PORT=port)
    assert ("note   HUB_METRICS_PORT: whoever reaches" in ended.stdout) == is_told


def test_wrong_settings_are_shown_with_exit_code_1(data_dir: Path) -> None:
    ended = run(data_dir, "check", HUB_NONSENSE="1")
    assert ended.returncode == 1
    assert "HUB_NONSENSE" in ended.stdout


@pytest.mark.slow
def test_a_migrated_database_is_right_and_an_empty_one_wrong(data_dir: Path) -> None:
    run(data_dir, "migrate")
    assert run(data_dir, "check").returncode == 0
    run(data_dir, "migrate", "down", "--yes")
    ended = run(data_dir, "check")
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["migrations"])


@pytest.mark.slow
def test_it_looks_at_a_running_hub_and_leaves_it_running(used_folder: Path, serve: Serve) -> None:
    hub = serve(used_folder)
    ended = run(used_folder, "check")
    assert ended.returncode == 0, ended.stdout
    assert hub.process.poll() is None


def test_a_database_that_is_away_is_wrong(data_dir: Path) -> None:
    url = "postgresql://hub:hunter22@127.0.0.1:1/hub"
    ended = run(data_dir, "check", HUB_DATABASE_URL=url, HUB_ENV="development")
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["database"])
    assert "hunter22" not in ended.stdout


@pytest.mark.slow
def test_a_role_that_owns_the_tables_is_wrong_in_production(used_folder: Path, serve: Serve) -> None:
    serve(used_folder)
    record = json.loads((used_folder / "postgres.json").read_text())
    url = f"postgresql://hub_owner:{record['passwords']['hub_owner']}@127.0.0.1:{record['port']}/hub"
    given = {
        "HUB_SECRET_KEYS": (used_folder / "secret-keys").read_text().strip(),
        "HUB_SIGNING_KEYS_FILE": str(used_folder / "signing-keys.pem"),
    }
    ended = run(used_folder, "check", HUB_DATABASE_URL=url, **given)
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["database role"])


@pytest.mark.slow
@pytest.mark.found("L10")
def test_more_connections_than_the_server_allows_are_wrong(used_folder: Path, serve: Serve) -> None:
    serve(used_folder)
    assert "4 servers and 1 worker open 18 each, 90 together" in run(used_folder, "check", HUB_WORKERS="4").stdout
    for too_many in ({"HUB_WORKERS": "6"}, {"HUB_POOL_SIZE": "30"}):
        ended = run(used_folder, "check", **too_many)
        assert (ended.returncode, _wrong(ended.stdout)) == (1, ["connections"])


def test_keys_that_others_can_read_are_wrong(data_dir: Path) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o711)
    keys = data_dir / "secret-keys"
    keys.write_text("k1:" + "A" * 43 + "=")
    keys.chmod(0o644)
    ended = run(data_dir, "check")
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["data folder"])


@pytest.mark.slow
def test_a_folder_for_secrets_that_is_not_there_is_wrong(data_dir: Path, tmp_path: Path) -> None:
    ended = run(data_dir, "check", HUB_SECRET_FILES_ROOT=str(tmp_path / "nowhere"))
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["secret files"])


@pytest.mark.slow
def test_it_says_who_seals_and_where_seals_are_copied(data_dir: Path, tmp_path: Path) -> None:
    said = run(data_dir, "check").stdout
    assert "note   sealing keys: would be created at the first start" in said
    assert "note   audit anchor: HUB_AUDIT_ANCHOR is not set" in said
    assert (
        f"right  audit anchor: seals are copied to {tmp_path}"
        in run(data_dir, "check", HUB_AUDIT_ANCHOR=str(tmp_path)).stdout
    )
    away = run(data_dir, "check", HUB_AUDIT_ANCHOR=str(tmp_path / "nowhere"))
    assert (away.returncode, _wrong(away.stdout)) == (1, ["audit anchor"])


@pytest.mark.slow
def test_it_says_whether_the_kernel_closes_off_connectors(data_dir: Path) -> None:
    said = "right  connectors: closed off" if version() else "note   connectors: this kernel has no Landlock"
    assert said in run(data_dir, "check").stdout


@pytest.mark.slow
def test_a_broker_and_a_stream_that_are_away_are_wrong(data_dir: Path) -> None:
    given = {
        "HUB_BROKER_URL": "stomp://hub:hunter22@127.0.0.1:1",
        "HUB_REDIS_URL": "redis://:hunter23@127.0.0.1:1/0",
        "HUB_EVENTS_REDIS_STREAM": "hub:events",
    }
    ended = run(data_dir, "check", **given)
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["limits", "broker", "events stream"])
    assert "127.0.0.1:1 cannot be reached" in ended.stdout
    assert "hunter2" not in ended.stdout


@pytest.mark.slow
def test_the_proxy_is_asked_for_a_way_to_nowhere(data_dir: Path) -> None:
    with connect_proxy.running(ConnectProxy(username="hub", password="canary")) as proxy:
        url = f"http://hub:canary@127.0.0.1:{proxy.port}"
        well = run(data_dir, "check", HUB_EGRESS_PROXY=url, HUB_EGRESS_DIRECT="10.0.0.0/8")
        refused = run(data_dir, "check", HUB_EGRESS_PROXY=url.replace("canary", "canary2"))
    away = run(data_dir, "check", HUB_EGRESS_PROXY=url)
    assert well.returncode == 0, well.stdout
    assert f"127.0.0.1:{proxy.port} answers; 10.0.0.0/8 is dialled without it" in well.stdout
    assert proxy.asked == ["hub-check.invalid:443"] * 2
    assert (refused.returncode, _wrong(refused.stdout)) == (1, ["egress proxy"])
    assert "(407)" in refused.stdout
    assert (away.returncode, _wrong(away.stdout)) == (1, ["egress proxy"])
    assert "canary" not in well.stdout + refused.stdout + away.stdout
    mistaken = run(data_dir, "check", HUB_EGRESS_PROXY="https://hub:canary@127.0.0.1:1")
    assert (mistaken.returncode, "canary" in mistaken.stdout) == (1, False)


@pytest.mark.slow
def test_a_hub_without_mail_is_fine(data_dir: Path) -> None:
    ended = run(data_dir, "check")
    assert ended.returncode == 0
    assert "note   mail: HUB_SMTP_URL is not set" in ended.stdout


@pytest.mark.slow
def test_a_mail_server_is_tried_and_sent_nothing(data_dir: Path) -> None:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(taking_mail()) as server:
        given = {"HUB_SMTP_URL": server.url(), "HUB_SMTP_FROM": "hub@example.org"}
        ended = run(data_dir, "check", **given, HUB_PUBLIC_URL="https://hub.example.org")
        assert f"right  mail: 127.0.0.1:{server.port} takes letters" in ended.stdout
        assert "note   mail" in run(data_dir, "check", **given).stdout, "links lead to this machine"
    assert server.taken == []
    ended = run(data_dir, "check", **given)
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["mail"])
    assert "cannot be reached" in ended.stdout


def test_a_mail_server_that_lets_nobody_in_is_wrong(data_dir: Path) -> None:
    secured = taking_mail(tls=authority().server_context("127.0.0.1"), login=("hub", "hunter22"))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(secured) as server:
        given = {"HUB_SMTP_FROM": "hub@example.org", "HUB_SMTP_CA_FILE": str(server.ca_file)}
        ended = run(data_dir, "check", **given, HUB_SMTP_URL=server.url(user="hub:hunter23@", tls="starttls"))
        assert "does not accept user and password" in ended.stdout
        assert "hunter2" not in ended.stdout
        ended = run(data_dir, "check", **given, HUB_SMTP_URL=server.url(user="hub:hunter22@", tls="starttls"))
        assert ended.returncode == 0
