"""The `hub` command on a hub that several organisations share."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.commands.hubs import Serve, Served, fresh_folder, run
from tests.conftest import PASSWORD

pytestmark = pytest.mark.slow

OTHER_PASSWORD = "paper boats under a copper moon"
SOURCE = {"type": "simulated", "name": "Shop", "config": {}, "secrets": {"password": "canary-of-acme"}}


@pytest.fixture
def other_dir() -> Iterator[Path]:
    with fresh_folder() as folder:
        yield folder


def with_acme(serve: Serve, data_dir: Path) -> Served:
    """A hub with a tenant `acme`, each of whose two tenants has a source with a secret."""
    hub = serve(data_dir)
    operator = hub.client()
    admin = {"email": "ada@acme.example.org", "password": PASSWORD}
    made = operator.post("/tenants", json={"slug": "acme", "name": "Acme", "admin": admin})
    assert made.status_code == 201, made.text
    for client in (operator, signed_in(hub, "ada@acme.example.org")):
        assert client.post("/data-sources", json=SOURCE).status_code == 201
    return hub


def signed_in(hub: Served, email: str, password: str = PASSWORD, tenant: str = "acme") -> httpx.Client:
    body = {"tenant": tenant, "email": email, "password": password}
    login = httpx.post(f"{hub.url}/api/v1/auth/login", json=body)
    assert login.status_code == 200, login.text
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    return httpx.Client(base_url=f"{hub.url}/api/v1", headers=headers, timeout=30)


def test_admins_and_passwords_are_of_the_tenant_that_is_named(data_dir: Path, serve: Serve) -> None:
    hub = with_acme(serve, data_dir)
    email = "grace@example.org"
    of_acme = ("--tenant", "acme", "--email", email, "--password-stdin")
    made = run(data_dir, "create-admin", *of_acme, text=f"{PASSWORD}\n")
    assert (made.returncode, made.stdout) == (0, f"{email} is an admin of acme now.\n"), made.stderr
    roles = [role["name"] for role in signed_in(hub, email).get("/auth/me").json()["roles"]]
    assert roles == ["admin", "public"]
    again = run(data_dir, "create-admin", *of_acme, text=f"{PASSWORD}\n")
    assert (again.returncode, "already uses" in again.stderr) == (1, True)
    unknown = run(data_dir, "reset-password", "--email", email, "--password-stdin", text=f"{OTHER_PASSWORD}\n")
    assert (unknown.returncode, "Nobody has the address" in unknown.stderr) == (1, True)
    done = run(data_dir, "reset-password", *of_acme, text=f"{OTHER_PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    signed_in(hub, email, OTHER_PASSWORD)
    for command in ("create-admin", "reset-password"):
        nowhere = run(data_dir, command, "--tenant", "nowhere", "--email", email, "--password-stdin", text="x\n")
        assert (nowhere.returncode, nowhere.stderr) == (1, "There is no tenant nowhere.\n")


def test_check_says_which_tenants_there_are_and_which_hosts_name_none(data_dir: Path, serve: Serve) -> None:
    with_acme(serve, data_dir).stop()
    fine = run(data_dir, "check", HUB_TENANT_HOSTS="acme.example.org=acme,hub.example.org=default")
    assert fine.returncode == 0, fine.stdout
    assert "right  tenants: 2" in fine.stdout
    wrong = run(data_dir, "check", HUB_TENANT_HOSTS="acme.example.org=acme,beta.example.org=beta")
    assert wrong.returncode == 1
    assert "wrong  tenants: HUB_TENANT_HOSTS: beta.example.org names beta, and there is no such tenant" in wrong.stdout


def test_keys_are_rotated_and_backups_made_over_all_tenants(
    data_dir: Path, other_dir: Path, serve: Serve, tmp_path: Path
) -> None:
    with_acme(serve, data_dir).stop()
    rotated = run(data_dir, "keys", "rotate")
    assert (rotated.returncode, "2 secrets sealed anew" in rotated.stdout) == (0, True), rotated.stdout
    assert run(data_dir, "backup", str(tmp_path / "hub.backup")).returncode == 0
    assert run(other_dir, "restore", str(tmp_path / "hub.backup")).returncode == 0
    for name in ("secret-keys", "signing-keys.pem"):
        (other_dir / name).write_bytes((data_dir / name).read_bytes())
        (other_dir / name).chmod(0o600)
    hub = serve(other_dir)
    client = signed_in(hub, "ada@acme.example.org")
    (source,) = client.get("/data-sources").json()["items"]
    assert client.post(f"/data-sources/{source['id']}/test").json()["status"] == "passed"
