"""Many deadlines on one timer."""

import asyncio
import time

import pytest

from app.core.deadlines import Deadlines, PatientDeadlines

pytestmark = pytest.mark.anyio


async def test_a_block_that_takes_too_long_ends_with_a_timeout() -> None:
    with pytest.raises(TimeoutError), Deadlines(0.01).start():
        await asyncio.sleep(30)
    await asyncio.sleep(0)  # the task is not left cancelled


async def test_each_of_many_ends_and_those_that_are_done_are_left_alone() -> None:
    deadlines = Deadlines(0.05)

    async def work(seconds: float) -> str:
        try:
            with deadlines.start():
                await asyncio.sleep(seconds)
        except TimeoutError:
            return "late"
        return "done"

    async def work_later() -> str:
        await asyncio.sleep(0.03)
        return await work(30)

    ended = await asyncio.gather(work(0), work(30), work(0), work(30), work_later())
    assert list(ended) == ["done", "late", "done", "late", "late"]
    assert await work(0) == "done"


async def test_a_lifted_deadline_no_longer_ends_its_block() -> None:
    with Deadlines(0.01).start() as deadline:
        deadline.lift()
        await asyncio.sleep(0.05)


async def test_what_is_told_to_end_when_it_is_over_leaves_its_task_alone() -> None:
    """Whoever ends a request of a suspended tenant has asked the database in between."""
    with Deadlines(30).start() as deadline:
        pass
    deadline.expire()
    await asyncio.sleep(0)


async def test_shortened_deadlines_end_what_runs_and_what_begins_later() -> None:
    deadlines = Deadlines(30)

    async def work(seconds: float) -> str:
        try:
            with deadlines.start():
                await asyncio.sleep(seconds)
        except TimeoutError:
            return "late"
        return "done"

    running = asyncio.gather(work(30), work(0.01), work(30))
    await asyncio.sleep(0)
    deadlines.shorten(0.2)
    deadlines.shorten(10)
    async with asyncio.timeout(10):
        assert list(await running) == ["late", "done", "late"]
        assert await work(30) == "late"


async def test_deadlines_that_nobody_has_can_be_shortened() -> None:
    deadlines = Deadlines(30)
    deadlines.shorten(0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            with deadlines.start():
                await asyncio.sleep(30)


async def test_a_cancelled_block_stays_cancelled() -> None:
    async def work() -> None:
        with Deadlines(30).start():
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_at_the_last_moment_is_not_covered_up() -> None:
    with pytest.raises(LookupError), Deadlines(0.01).start():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise LookupError from None


def test_one_object_serves_one_event_loop_after_the_other() -> None:
    deadlines = Deadlines(0.01)

    async def work() -> None:
        with pytest.raises(TimeoutError), deadlines.start():
            await asyncio.sleep(30)

    for _ in range(2):
        asyncio.run(work())

    async def leave_one_running() -> None:
        asyncio.get_running_loop().create_task(work())
        await asyncio.sleep(0)

    asyncio.run(leave_one_running())
    asyncio.run(work())


async def test_a_loop_that_is_late_itself_does_not_make_an_answer_late() -> None:
    """Half a second in which nothing runs here is one turn of five."""
    deadlines = PatientDeadlines(5, turn_s=0.02)
    with deadlines.start():
        await asyncio.sleep(0)
        time.sleep(0.5)
        await asyncio.sleep(0.01)
        time.sleep(0.5)


async def test_turns_end_what_does_not_end_by_itself() -> None:
    deadlines = PatientDeadlines(3, turn_s=0.01)
    for _ in range(2):
        with pytest.raises(TimeoutError), deadlines.start():
            await asyncio.sleep(10)
    assert deadlines._running == {}
