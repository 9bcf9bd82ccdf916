"""The ceiling of logins: the hub's own bounded argon2 pool, verifying for many callers, with nothing around it.

Run by load.py as `python -m bench.argon2_pool CALLERS SECONDS`; its last line has the shape of a load generator's.
"""

import asyncio
import sys
import time

import msgspec

from app.core.passwords import PasswordHasher
from bench.load import Outcome
from bench.report import percentile

_LONGEST_WAIT_S = 600.0
"""Nobody is refused here: the ceiling is that of the work."""
_PASSWORD = "correct horse battery staple"


async def _caller(hasher: PasswordHasher, password_hash: str, ends_at: float, latencies_ms: list[float]) -> None:
    while (began := time.perf_counter()) < ends_at:
        if not await hasher.verify(password_hash, _PASSWORD):
            raise ValueError("the password that was hashed did not verify")
        latencies_ms.append((time.perf_counter() - began) * 1000)


async def _measure(callers: int, seconds: float) -> Outcome:
    hasher = PasswordHasher(longest_wait_s=_LONGEST_WAIT_S)
    password_hash = await hasher.hash(_PASSWORD)
    latencies_ms: list[float] = []
    began, cpu_began = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(_caller(hasher, password_hash, began + seconds, latencies_ms))
    return Outcome(
        requests=len(latencies_ms),
        seconds=time.perf_counter() - began,
        bytes=0,
        bad_statuses=0,
        socket_errors=0,
        p50_ms=percentile(latencies_ms, 50),
        p99_ms=percentile(latencies_ms, 99),
        cpu_s=time.process_time() - cpu_began,
    )


if __name__ == "__main__":
    outcome = asyncio.run(_measure(int(sys.argv[1]), float(sys.argv[2])))
    print("BENCH " + msgspec.json.encode(outcome).decode())
