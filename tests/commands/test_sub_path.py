"""What clients call a hub: by the port that it was given, or below a path behind a reverse proxy (HUB_PUBLIC_URL)."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from app.core.security import AUDIENCE
from tests.commands.hubs import Serve
from tests.reverse_proxy import ReverseProxy, reverse_proxy
from tests.serving import ADMIN_EMAIL, PASSWORD, serving

pytestmark = [pytest.mark.slow, pytest.mark.found("U9")]


@pytest.fixture(scope="module", params=["strips the path", "leaves the path on"])
def proxy(request: pytest.FixtureRequest) -> Iterator[ReverseProxy]:
    with reverse_proxy("/data/hub", strips=request.param == "strips the path") as proxy:
        with serving(HUB_PUBLIC_URL=proxy.url) as served:
            proxy.target = served.url
            yield proxy
        assert proxy.refused == []


@pytest.fixture
def client(proxy: ReverseProxy) -> Iterator[httpx.Client]:
    """Of the proxy's origin, signed in: it follows what answers say, and knows nothing of the path."""
    origin = proxy.url.removesuffix("/data/hub")
    with httpx.Client(base_url=origin, trust_env=False, timeout=30) as client:
        asked = {"email": ADMIN_EMAIL, "password": PASSWORD}
        tokens = client.post("/data/hub/api/v1/auth/login", json=asked).json()
        client.headers["authorization"] = f"Bearer {tokens['access_token']}"
        yield client


def test_the_document_says_where_its_paths_begin(proxy: ReverseProxy, client: httpx.Client) -> None:
    document = client.get("/data/hub/openapi.json").json()
    assert [server["url"] for server in document["servers"]] == ["/data/hub"]
    told = client.get("/data/hub/").json()
    assert told["documentation"] == "/data/hub/docs"
    assert client.get(told["openapi"]).json() == document
    assert client.get(told["asyncapi"]).json()["servers"]["hub"]["pathname"] == "/data/hub"
    browsers = client.get("/data/hub", headers={"accept": "text/html"})
    assert (browsers.status_code, browsers.headers["location"]) == (302, "/data/hub/docs")


def test_a_location_can_be_followed(proxy: ReverseProxy, client: httpx.Client) -> None:
    simulated = {"type": "simulated", "config": {}}
    bodies: dict[str, object] = {
        "roles": {"name": uuid.uuid4().hex},
        "users": {"email": f"{uuid.uuid4().hex}@example.org"},
        "data-sources": {"name": uuid.uuid4().hex, **simulated},
        "data-sources/bulk": {"data_sources": [{"name": uuid.uuid4().hex, **simulated}]},
    }
    for path, body in bodies.items():
        made = client.post(f"/data/hub/api/v1/{path}", json=body)
        assert made.status_code == 201, made.text
        assert made.headers["location"].startswith("/data/hub/api/v1/")
        assert client.get(made.headers["location"]).status_code == 200
    (source, *_) = client.get("/data/hub/api/v1/data-sources").json()["items"]
    job = client.post(f"/data/hub/api/v1/data-sources/{source['id']}/discover")
    assert client.get(job.headers["location"]).json()["id"] == job.json()["id"]


def test_a_link_can_be_followed(proxy: ReverseProxy, client: httpx.Client) -> None:
    lines = {"accept": "application/x-ndjson"}
    first = client.get("/data/hub/api/v1/audit-events?limit=1", headers=lines)
    assert first.links["next"]["url"].startswith("/data/hub/api/v1/audit-events?")
    assert client.get(first.links["next"]["url"], headers=lines).status_code == 200


def test_a_token_is_verified_with_the_keys_below_its_issuer(proxy: ReverseProxy, client: httpx.Client) -> None:
    token = client.headers["authorization"].removeprefix("Bearer ")
    issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
    assert issuer == proxy.url
    keys = jwt.PyJWKSet.from_dict(httpx.get(f"{issuer}/.well-known/jwks.json", trust_env=False).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, algorithms=["EdDSA"], audience=AUDIENCE, issuer=proxy.url)["sub"]


@pytest.mark.parametrize("page", ["docs", "docs/swagger", "docs/scalar"])
def test_a_page_asks_for_nothing_outside_of_the_path(proxy: ReverseProxy, client: httpx.Client, page: str) -> None:
    html = client.get(f"/data/hub/{page}").text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(addresses) > 6
    for address in addresses:
        assert address.startswith(("/data/hub/", "data:")), address
        if address.startswith("/"):
            assert client.get(address).status_code == 200, address


def test_probes_of_the_hub_itself_need_no_path(proxy: ReverseProxy) -> None:
    for path in ("/health/live", "/health/ready", "/data/hub/health/ready"):
        assert httpx.get(proxy.target + path, trust_env=False).status_code == 200, path
    assert httpx.get(f"{proxy.target}/data/hubs/health/ready", trust_env=False).status_code == 404


def test_tokens_name_the_port_that_the_hub_was_given(data_dir: Path, serve: Serve) -> None:
    hub = serve(data_dir)
    with hub.client() as client:
        token = client.headers["authorization"].removeprefix("Bearer ")
    assert jwt.decode(token, options={"verify_signature": False})["iss"] == hub.url
    assert urlsplit(hub.url).port != 8000
    assert f"{hub.url}/docs" in hub.said
