"""Work that goes wrong takes nothing of the hub with it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.connectors import registry
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.contract.steps import TestResult
from app.connectors.processes.children import MAX_TEMPLATES
from app.connectors.processes.sandbox import ConnectorSandbox, SandboxClosed, TooManyConnectorRuns
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY
from tests.connectors.servers.starting import ROOT

pytestmark = pytest.mark.anyio

POLICY = EgressPolicy(loopback_allowed=True)
SECRETS = {"password": CANARY}


@pytest.fixture
async def faulty() -> AsyncIterator[ConnectorSandbox]:
    sandbox = ConnectorSandbox(packages=("tests.connectors.faulty",), memory_bytes=256 * 1024**2)
    yield sandbox
    await sandbox.close()


async def check(sandbox: ConnectorSandbox, way: str, target: str = "", deadline_s: float = 10) -> TestResult:
    config = {"way": way, "target": target}
    return await sandbox.check("misbehaving", config, SECRETS, POLICY, deadline_s=deadline_s)


def codes(result: TestResult) -> list[str]:
    return [step.code for step in result.steps]


@pytest.mark.parametrize(
    ("way", "code"),
    [
        ("segv", "crashed"),
        ("exit", "crashed"),
        ("raise", "crashed"),
        ("eat", "out_of_memory"),
        ("eat_slowly", "out_of_memory"),
    ],
)
async def test_a_connector_that_breaks_is_a_failed_step(faulty: ConnectorSandbox, way: str, code: str) -> None:
    result = await check(faulty, way)
    assert result.status == "failed"
    assert codes(result) == ["ok", "ok", "not_reached", code, "not_reached"]
    assert result.steps[3].fault == "hub"
    assert CANARY not in repr(result)


async def test_a_connector_that_hangs_fails_the_step_it_hangs_in(faulty: ConnectorSandbox) -> None:
    await check(faulty, "well")
    result = await check(faulty, "hang", deadline_s=2)
    assert codes(result) == ["ok", "ok", "not_reached", "timeout", "not_reached"]
    assert 1000 < result.steps[3].duration_ms < 5000


async def test_a_hanging_connector_leaves_the_event_loop_free(faulty: ConnectorSandbox) -> None:
    hanging = asyncio.create_task(check(faulty, "hang", deadline_s=1.5))
    ticks = 0
    while not hanging.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 20
    assert codes(await hanging)[3] == "timeout"


async def test_what_a_driver_prints_goes_nowhere(faulty: ConnectorSandbox) -> None:
    result = await check(faulty, "chatter")
    assert result.status == "passed"
    assert CANARY not in repr(result)


async def test_previews_that_break_raise(faulty: ConnectorSandbox) -> None:
    for way, code in (("segv", "crashed"), ("eat", "out_of_memory"), ("hang", "timeout")):
        with pytest.raises(ConnectorError) as caught:
            await faulty.preview(
                "misbehaving", {"way": way}, SECRETS, POLICY, PreviewRequest(path=("x",)), deadline_s=2
            )
        assert caught.value.code == code
        assert CANARY not in str(caught.value)


async def test_a_discovery_that_breaks_has_given_what_it_had(faulty: ConnectorSandbox) -> None:
    for way, code in (("segv", "crashed"), ("raise", "crashed"), ("hang", "timeout")):
        names = []
        batches = faulty.discover("misbehaving", {"way": way}, SECRETS, POLICY, idle_s=2)
        for _ in range(3):
            names += [item.name for item in await anext(batches)]
        with pytest.raises(ConnectorError) as caught:
            await anext(batches)
        assert names == ["0", "1", "2"]
        assert caught.value.code == code


@pytest.mark.fault("RL5")
async def test_an_endless_discovery_ends_at_its_deadline(faulty: ConnectorSandbox) -> None:
    with pytest.raises(ConnectorError) as caught:
        async for _ in faulty.discover("misbehaving", {"way": "endless"}, {}, POLICY, deadline_s=1.5):
            pass
    assert caught.value.code == "timeout"


async def test_leaving_a_discovery_ends_its_process(faulty: ConnectorSandbox) -> None:
    batches = faulty.discover("misbehaving", {"way": "endless"}, {}, POLICY)
    async with contextlib.aclosing(batches):  # type: ignore[type-var]
        await anext(batches)
        (running,) = faulty.pids
    assert not is_alive(running)


async def test_a_cancelled_check_ends_its_process(faulty: ConnectorSandbox) -> None:
    task = asyncio.create_task(check(faulty, "hang"))
    await until(lambda: bool(faulty.pids))
    (running,) = faulty.pids
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(running)


async def test_an_unknown_way_out_is_closed(faulty: ConnectorSandbox, tmp_path: Path) -> None:
    """The wall behind the policy: a driver that dials, looks up, or starts a process by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "s"))
        local.listen()
        port = str(listener.getsockname()[1])
        for way, target in (
            ("dial", port), ("send_to", port), ("send_message", port), ("unix", str(tmp_path / "s")),
            ("look_up", ""), ("spawn", ""),
        ):  # fmt: skip
            result = await check(faulty, way, target)
            assert codes(result)[3] == "egress_refused", way


async def test_over_a_connection_that_stands_messages_go(faulty: ConnectorSandbox) -> None:
    assert (await check(faulty, "send_on")).status == "passed"


async def test_a_connector_sees_nothing_of_the_hubs_environment(
    faulty: ConnectorSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HUB_SECRET_KEYS", "PGPASSWORD", "PGSERVICEFILE", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"):
        monkeypatch.setenv(name, CANARY)
    result = await check(faulty, "environment")
    assert result.status == "passed", result


async def test_a_connector_runs_the_code_of_its_own_hub(tmp_path: Path) -> None:
    """Not another package of the name `app` that is installed: here, the one that runs these tests."""
    shutil.copytree(ROOT / "app" / "connectors", tmp_path / "app" / "connectors")
    shutil.copytree(ROOT / "app" / "core", tmp_path / "app" / "core")
    (tmp_path / "app" / "__init__.py").touch()
    steps = tmp_path / "app" / "connectors" / "contract" / "steps.py"
    steps.write_text(steps.read_text().replace("Not reached: an earlier step failed.", "From the copy."))
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import asyncio\n"
        "from app.connectors.processes.sandbox import ConnectorSandbox\n"
        "from app.core.egress import EgressPolicy\n"
        "async def main():\n"
        "    sandbox = ConnectorSandbox()\n"
        "    result = await sandbox.check('rest', {'base_url': 'http://127.0.0.1'}, {}, EgressPolicy())\n"
        "    print(result.steps[-1].message)\n"
        "    await sandbox.close()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "From the copy."


async def test_secrets_are_in_no_argument_and_no_environment(faulty: ConnectorSandbox) -> None:
    task = asyncio.create_task(check(faulty, "hang", deadline_s=3))
    await until(lambda: bool(faulty.pids))
    await asyncio.sleep(0.5)
    for pid in faulty.pids:
        seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert CANARY.encode() not in seen
        assert b"HUB_" not in seen
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_runs_are_capped_for_the_hub_and_for_each_tenant() -> None:
    sandbox = ConnectorSandbox(max_runs=3, max_runs_per_tenant=2, packages=("tests.connectors.faulty",))

    async def hang(tenant: str) -> None:
        await sandbox.check("misbehaving", {"way": "hang"}, {}, POLICY, deadline_s=30, tenant=tenant)

    tasks = [asyncio.create_task(hang(tenant)) for tenant in ("one", "one", "two")]
    try:
        await asyncio.sleep(0)
        with pytest.raises(TooManyConnectorRuns) as of_tenant:
            await ConnectorSandbox.check(sandbox, "misbehaving", {"way": "well"}, {}, POLICY, tenant="one")
        tasks.pop().cancel()
        await asyncio.sleep(0.5)
        with pytest.raises(TooManyConnectorRuns) as of_tenant_again:
            await sandbox.check("misbehaving", {"way": "well"}, {}, POLICY, tenant="one")
        assert of_tenant.value.scope == "hub"
        assert of_tenant_again.value.scope == "tenant"
        result = await sandbox.check("misbehaving", {"way": "well"}, {}, POLICY, tenant="two")
        assert result.status == "passed"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await sandbox.close()


async def test_an_idle_hub_holds_no_process_and_a_template_goes_after_a_while() -> None:
    sandbox = ConnectorSandbox(template_idle_s=0.5, packages=("tests.connectors.faulty",))
    assert not sandbox.pids | sandbox.template_pids
    await check(sandbox, "well")
    (template,) = sandbox.template_pids
    assert not sandbox.pids
    await until(lambda: not sandbox.template_pids)
    assert not is_alive(template)
    await sandbox.close()


async def test_each_piece_of_work_has_a_process_of_its_own(faulty: ConnectorSandbox) -> None:
    first, second = [asyncio.create_task(check(faulty, "hang", deadline_s=2)) for _ in range(2)]
    await until(lambda: len(faulty.pids) == 2)
    (template,) = faulty.template_pids
    assert template not in faulty.pids
    assert (await check(faulty, "well")).status == "passed"
    assert faulty.template_pids == {template}
    await leave(first, second)
    assert not faulty.pids


async def test_what_one_did_to_its_process_is_gone_with_it(faulty: ConnectorSandbox) -> None:
    """A module that was changed, for one: the next one is forked from the template, which no work ever reached."""
    assert (await check(faulty, "poison")).status == "passed"
    assert (await check(faulty, "poison")).status == "passed"


async def test_a_process_inherits_nothing_that_is_open_for_others(faulty: ConnectorSandbox) -> None:
    """Its own: three standard ones, the channel and its copy, three of an event loop, and the folder that it lists."""
    others = [asyncio.create_task(check(faulty, "hang", deadline_s=3)) for _ in range(3)]
    await until(lambda: len(faulty.pids) == 3)
    result = await check(faulty, "descriptors", "9")
    assert result.status == "passed", result
    await leave(*others)


async def test_a_template_that_was_killed_is_not_missed(faulty: ConnectorSandbox) -> None:
    await check(faulty, "well")
    (template,) = faulty.template_pids
    os.kill(template, signal.SIGKILL)
    await until(lambda: not is_alive(template))
    await asyncio.sleep(0.1)
    assert (await check(faulty, "well")).status == "passed"


async def test_a_template_that_is_killed_takes_its_children_along(faulty: ConnectorSandbox) -> None:
    hanging = asyncio.create_task(check(faulty, "hang"))
    await until(lambda: bool(faulty.pids))
    await asyncio.sleep(0.3)
    (child,), (template,) = faulty.pids, faulty.template_pids
    os.kill(template, signal.SIGKILL)
    result = await hanging
    assert codes(result)[3] == "crashed"
    assert not faulty.pids
    await until(lambda: not is_alive(child))


@pytest.mark.slow
async def test_few_templates_wait_at_once() -> None:
    sandbox = ConnectorSandbox(packages=registry.PACKAGES)
    try:
        types = [connector.type for connector in registry.all()][: MAX_TEMPLATES + 2]
        for type_name in types:
            assert (await sandbox.check(type_name, {}, {}, POLICY)).status in ("failed", "unsupported", "passed")
        await until(lambda: len(sandbox.template_pids) == MAX_TEMPLATES)
    finally:
        await sandbox.close()


async def test_a_driver_that_starts_threads_as_it_is_imported_is_never_forked() -> None:
    """Its locks would be held for ever by threads that are not there: such a process does its work itself."""
    sandbox = ConnectorSandbox(packages=("tests.connectors.threaded",))
    try:
        for _ in range(2):
            result = await sandbox.check("threaded", {}, {}, POLICY)
            assert (result.status, result.server) == ("passed", {"threads": "2"})
        await until(lambda: not sandbox.pids | sandbox.template_pids)
    finally:
        await sandbox.close()


async def test_close_leaves_no_process() -> None:
    sandbox = ConnectorSandbox(packages=("tests.connectors.faulty",))
    await check(sandbox, "well")
    task = asyncio.create_task(check(sandbox, "hang"))
    await asyncio.sleep(0.5)
    pids = sandbox.pids | sandbox.template_pids
    await sandbox.close()
    assert len(pids) == 2
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(SandboxClosed):
        await check(sandbox, "well")
    assert (await task).status == "failed"
    assert not sandbox.pids | sandbox.template_pids


def test_connector_processes_end_with_a_hub_that_is_killed() -> None:
    program = (
        "import asyncio\n"
        "from app.connectors.processes.sandbox import ConnectorSandbox\n"
        "from app.core.egress import EgressPolicy\n"
        "async def main():\n"
        "    sandbox = ConnectorSandbox(packages=('tests.connectors.faulty',))\n"
        "    task = asyncio.create_task(sandbox.check('misbehaving', {'way': 'hang'}, {}, EgressPolicy()))\n"
        "    while not sandbox.pids: await asyncio.sleep(0.01)\n"
        "    await asyncio.sleep(1)\n"
        "    print(*sandbox.pids, *sandbox.template_pids, flush=True)\n"
        "    await task\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdout
        pids = [int(pid) for pid in hub.stdout.readline().split()]
        hub.kill()
    assert pids
    ends = time.monotonic() + 5
    while any(is_alive(pid) for pid in pids) and time.monotonic() < ends:
        time.sleep(0.02)
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.slow
async def test_the_end_of_each_of_many_processes_is_told_at_once(sandbox: ConnectorSandbox) -> None:
    """One of two thousand ended between a template's look at its signals and its wait for orders, and a preview that
    had long been there was a time-out."""
    for number in range(1_500):
        with pytest.raises(ConnectorError) as caught:
            request = PreviewRequest(path=("nothing",))
            await sandbox.preview("simulated", {"objects": 1}, {}, EgressPolicy(), request, deadline_s=3)
        assert caught.value.code == "not_found"
        await asyncio.sleep(0.001 * (number % 7))


async def leave(*hanging: asyncio.Task[TestResult]) -> None:
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


def is_alive(pid: int) -> bool:
    """A process that has ended and is not yet collected counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(is_so: object, timeout_s: float = 10) -> None:
    assert callable(is_so)
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.01)
