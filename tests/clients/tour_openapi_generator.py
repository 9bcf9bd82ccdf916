"""The README's tour with the client that OpenAPI Generator makes for Python: `python tour.py <url> <email> <password>
<file>`.
"""

import sys
import time

from hub_client import (
    AnyConnection,
    AnyDataSource,
    ApiClient,
    ApiException,
    AuditApi,
    AuthApi,
    Configuration,
    DataSourcesApi,
    ErrorBody,
    JobsApi,
    JobStatus,
    Login,
    PortableType,
    PreviewAsk,
    RoleCreate,
    RolesApi,
    SourceStatus,
    SqliteConfig,
    SqliteConnection,
    SqliteDataSource,
    TestStatus,
    UserCreate,
    UsersApi,
)


def tour(url: str, email: str, password: str, file: str) -> None:
    configuration = Configuration(host=url)
    api = ApiClient(configuration)
    configuration.access_token = AuthApi(api).login(Login(email=email, password=password)).access_token
    assert AuthApi(api).get_me().user.email == email

    role = RolesApi(api).create_role(RoleCreate(name="analysts of java", permissions=["data-sources:read"]))
    user = UsersApi(api).create_user(UserCreate(email="java@example.org"))
    holder = UsersApi(api).assign_role(user.id, role.id)
    assert "analysts of java" in [held.name for held in holder.roles]

    sources = DataSourcesApi(api)
    wrong = SqliteConnection(type="sqlite", config=SqliteConfig(path="nothing.db"))
    assert sources.test_connection(AnyConnection(wrong)).status is TestStatus.FAILED
    new = SqliteDataSource(type="sqlite", name="Shop of java", config=SqliteConfig(path=file))
    source = sources.create_source(AnyDataSource(new))
    assert source.status is SourceStatus.UNTESTED
    try:
        sources.create_source(AnyDataSource(new))
    except ApiException as error:
        assert isinstance(error.data, ErrorBody)
        assert error.data.code == "name_taken"
    else:
        raise AssertionError("a name was taken twice")
    tested = sources.test_source(source.id)
    assert [step.name.value for step in tested.steps] == ["resolve", "connect", "tls", "authenticate", "list"]
    assert tested.status is TestStatus.PASSED

    job = sources.discover_data_source(source.id)
    while job.status in (JobStatus.QUEUED, JobStatus.RUNNING):
        time.sleep(0.1)
        job = JobsApi(api).get_job(job.id)
    assert job.status is JobStatus.SUCCEEDED
    (found,) = sources.list_objects(source.id, q="orders").items
    assert [(field.name, field.type) for field in found.fields] == [
        ("id", PortableType.INTEGER),
        ("name", PortableType.STRING),
    ]
    sample = sources.preview_data_source(source.id, PreviewAsk(object=str(found.id), limit=2))
    assert sample.rows == [[1, "a lamp"], [2, "a kettle"]]

    UsersApi(api).delete_user(user.id)
    events = AuditApi(api).list_audit_events(resource_id=user.id)
    assert [event.action for event in events.items] == ["user.delete", "user.assign_role", "user.create"]


if __name__ == "__main__":
    tour(*sys.argv[1:5])
