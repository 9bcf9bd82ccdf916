"""What a request costs, declared on its route beside what it requires: `opt=requires(...) | costs("connector run")`.

A route that declares nothing costs what its method does: GET reads, everything else writes. `check_routes` works the
prices out when the hub starts, so that none is forgotten.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from app.core.limits.rates import PolicyName

Work = Literal["nothing", "read", "write", "connector run", "query", "login"]

UNITS: Mapping[Work, int] = {"nothing": 0, "read": 1, "write": 2, "connector run": 10, "query": 10, "login": 1}
"""A login has a quota of its own, in which each counts as one."""
OF_CONNECTOR_RUNS = frozenset(("connectors_busy", "too_many_connector_runs"))
"""Whoever can be told these runs a connector."""


class Price(NamedTuple):
    units: int
    policy: PolicyName
    """Whose quota it is taken from."""


def costs(work: Work) -> dict[str, object]:
    """`nothing` is for what is the same for everybody and lies in memory: documents, and the answers to probes."""
    return {"costs": work}


def price_of(opt: Mapping[str, Any], methods: Iterable[str], *, is_open: bool, codes: Iterable[str] = ()) -> Price:
    """Raises ValueError for a route that runs a connector, by the codes that it declares, at the price of another."""
    work: Work = opt.get("costs") or ("read" if set(methods) <= {"GET", "HEAD"} else "write")
    if OF_CONNECTOR_RUNS.intersection(codes) and work != "connector run":
        raise ValueError('runs a connector, and has to say `costs("connector run")`')
    policy: PolicyName = "login-address" if work == "login" else "address" if is_open else "principal"
    return Price(UNITS[work], policy)
