"""`/scim/v2` by somebody else's measure: scim2-tester, against a hub as it is served."""

from collections.abc import Iterator

import httpx
import pytest

from tests.serving import Served, serving


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.mark.slow
def test_scim2_tester_finds_no_fault(served: Served) -> None:
    import httpx2  # here: to import them takes seconds, which every run of any test would wait for
    from scim2_client.engines.httpx2 import SyncSCIMClient
    from scim2_tester import Status, check_server

    signed_in = {"Authorization": f"Bearer {served.sign_in()}"}
    made = httpx.post(f"{served.url}/api/v1/scim-keys", json={"name": "a"}, headers=signed_in, trust_env=False)
    assert made.status_code == 201, made.text
    bearer = {"Authorization": f"Bearer {made.json()['key']}"}
    with httpx2.Client(base_url=f"{served.url}/scim/v2", headers=bearer, trust_env=False, timeout=30) as client:
        results = check_server(SyncSCIMClient(client))
    bad = [
        (each.title, each.reason, each.data) for each in results if each.status not in (Status.SUCCESS, Status.SKIPPED)
    ]
    assert bad == []
    assert len([each for each in results if each.status is Status.SUCCESS]) > 100
