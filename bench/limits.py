"""What counting requests costs a read, without Redis: by CPU, against a hub that counts nobody's."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.before_after import Side, started
from bench.page import Findings
from bench.probe import WrongAnswer, expect
from bench.report import Goal, Work
from bench.rounds import Bench, Entry
from bench.seeding import sign_in

AT_LEAST = 0.92
"""A read may cost eight per cent more than without them."""
WITHOUT = "without limits"
_WITHOUT_LIMITS = Path(__file__).with_name("without_limits")


def measure(bench: Bench) -> Findings:
    with ExitStack() as stack:
        sides = {WITHOUT: started(stack, {"PYTHONPATH": str(_WITHOUT_LIMITS)}), "hub": started(stack)}
        return Findings(list(_works(bench, sides)))


def _works(bench: Bench, sides: dict[str, Side]) -> Iterator[Work]:
    for name, path in {"GET /auth/me": "/auth/me", "GET /roles/{id}": "/roles/{id}"}.items():
        work = Work(name, [Goal("hub", WITHOUT, AT_LEAST, "cpu")])
        bench.run(work, {who: _entry(side, path, counts=who == "hub") for who, side in sides.items()})
        yield work


def _entry(side: Side, path: str, *, counts: bool) -> Entry:
    """Raises WrongAnswer where the one does count, or the other does not."""
    request = sign_in(side.server.url).request("GET", path.replace("{id}", side.rows.role_id))
    if ("ratelimit" in {name.lower() for name in expect(request, 200).headers}) != counts:
        raise WrongAnswer(f"{path} of a hub that counts: {counts}")
    return Entry(side.server, request, same_values=False)
