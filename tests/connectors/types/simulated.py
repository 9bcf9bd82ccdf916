"""The rehearsal type, which needs no server."""

from __future__ import annotations

from tests.connectors.contract import CANARY, Case, FieldFacts, Kind, Ports, Start

FIELDS: tuple[FieldFacts, ...] = (
    ("field_1", "integer", "simulated_integer", False),
    ("field_2", "string", "simulated_string", True),
    ("field_3", "decimal", "simulated_decimal", True),
)


def kind(start: Start, ports: Ports) -> Kind:
    steps = ("resolve", "connect", "tls", "authenticate", "list")
    codes = ("name_not_resolved", "connection_refused", "tls_failed", "authentication_failed", "permission_denied")
    return Kind(
        "simulated",
        {"objects": 2, "fields": 3, "rows": 2},
        {"password": f"pw-{CANARY}"},
        (
            *(
                Case(code, step, code, {"fail_at": step, "fail_code": code})
                for step, code in zip(steps, codes, strict=True)
            ),
            Case("crashes", "list", "crashed", {"misbehaviour": "crash"}),
            Case("eats_memory", "list", "out_of_memory", {"misbehaviour": "exhaust_memory"}),
        ),
        {("simulated", f"object_{number:06}"): ("table", FIELDS) for number in range(2)},
        {("simulated", "object_000001"): [[1, "text 1", "0.50"], [2, "text 2", "1.50"]]},
        dials=False,
    )
