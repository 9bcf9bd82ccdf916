"""The README's tour with the client that `openapi-python-client` makes: `python tour.py <url> <email> <password> <file>`.

Typed throughout: the test runs mypy over it, strictly, before it runs it. Imports stand in order of use.
"""

import sys
import time

from data_fusion_hub_client import AuthenticatedClient, Client
from data_fusion_hub_client.api.audit import list_audit_events
from data_fusion_hub_client.api.auth import get_me, login
from data_fusion_hub_client.api.data_sources import (
    create_source,
    discover_data_source,
    list_objects,
    preview_data_source,
    test_connection,
    test_source,
)
from data_fusion_hub_client.api.jobs import get_job
from data_fusion_hub_client.api.roles import create_role
from data_fusion_hub_client.api.users import assign_role, create_user, delete_user
from data_fusion_hub_client.models import (
    DataSourceSaved,
    ErrorBody,
    ErrorCode,
    JobOut,
    JobStatus,
    Login,
    Me,
    PageOfAuditEventOut,
    PageOfObjectOut,
    PortableType,
    PreviewAsk,
    PreviewResult,
    RoleCreate,
    RoleOut,
    SourceStatus,
    SqliteConfig,
    SqliteConnection,
    SqliteConnectionType,
    SqliteDataSource,
    SqliteDataSourceType,
    TestResult,
    TestStatus,
    TokenPair,
    UserCreate,
    UserOut,
)


def tour(url: str, email: str, password: str, file: str) -> None:
    visitor = Client(base_url=url)
    tokens = login.sync(client=visitor, body=Login(email=email, password=password))
    assert isinstance(tokens, TokenPair)
    hub = AuthenticatedClient(base_url=url, token=tokens.access_token)
    me = get_me.sync(client=hub)
    assert isinstance(me, Me)
    assert isinstance(me.user, UserOut)
    assert me.user.email == email

    role = create_role.sync(client=hub, body=RoleCreate(name="analysts of python", permissions=["data-sources:read"]))
    assert isinstance(role, RoleOut)
    user = create_user.sync(client=hub, body=UserCreate(email="python@example.org"))
    assert isinstance(user, UserOut)
    holder = assign_role.sync(user.id, role.id, client=hub)
    assert isinstance(holder, UserOut)
    assert "analysts of python" in [held.name for held in holder.roles]

    config = SqliteConfig(path=file)
    wrong = SqliteConnection(type_=SqliteConnectionType.SQLITE, config=SqliteConfig(path="nothing.db"))
    failed = test_connection.sync(client=hub, body=wrong)
    assert isinstance(failed, TestResult)
    assert failed.status is TestStatus.FAILED
    new = SqliteDataSource(type_=SqliteDataSourceType.SQLITE, name="Shop of python", config=config)
    source = create_source.sync(client=hub, body=new)
    assert isinstance(source, DataSourceSaved)
    assert source.status is SourceStatus.UNTESTED
    taken = create_source.sync(client=hub, body=new)
    assert isinstance(taken, ErrorBody)
    assert taken.code is ErrorCode.NAME_TAKEN
    tested = test_source.sync(source.id, client=hub)
    assert isinstance(tested, TestResult)
    assert [step.name.value for step in tested.steps] == ["resolve", "connect", "tls", "authenticate", "list"]
    assert tested.status is TestStatus.PASSED

    job = discover_data_source.sync(source.id, client=hub)
    while isinstance(job, JobOut) and job.status in (JobStatus.QUEUED, JobStatus.RUNNING):
        time.sleep(0.1)
        job = get_job.sync(job.id, client=hub)
    assert isinstance(job, JobOut)
    assert job.status is JobStatus.SUCCEEDED
    objects = list_objects.sync(source.id, client=hub, q="orders")
    assert isinstance(objects, PageOfObjectOut)
    (found,) = objects.items
    assert [(field.name, field.type_) for field in found.fields] == [
        ("id", PortableType.INTEGER),
        ("name", PortableType.STRING),
    ]
    sample = preview_data_source.sync(source.id, client=hub, body=PreviewAsk(object_=str(found.id), limit=2))
    assert isinstance(sample, PreviewResult)
    assert sample.rows == [[1, "a lamp"], [2, "a kettle"]]

    delete_user.sync(user.id, client=hub)
    events = list_audit_events.sync(client=hub, resource_id=user.id)
    assert isinstance(events, PageOfAuditEventOut)
    assert [event.action for event in events.items] == ["user.delete", "user.assign_role", "user.create"]


if __name__ == "__main__":
    tour(*sys.argv[1:5])
