"""Alerts and dashboards name metrics, labels and runbooks that exist, and say something of each of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import structs
from prometheus_client import REGISTRY
from prometheus_client.core import Metric

from app import worker  # noqa: F401 - with its metrics
from app.connectors.contract.failures import EXPLANATIONS
from app.core import (
    error_codes,
    telemetry,  # noqa: F401 - with those of traces
)
from app.domain.health import gauges
from tests.conftest import Hub
from tests.readme_tables import README
from tests.test_project import ROOT

pytestmark = pytest.mark.anyio

ALERTS = sorted((ROOT / "docs/prometheus").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "docs/grafana").glob("*.json"))
OF_PROMETHEUS = {"up": {"job", "instance"}}
OF_SCRAPES = {"job", "instance"}
"""Labels that Prometheus adds to each series."""
KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
NO_CODES = {"pg_stat_activity", "max_connections", "is_paused"}
DURATION = r"\d+(ms|s|m|h|d)"


def alerts() -> list[dict[str, Any]]:
    groups = [group for path in ALERTS for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions() -> list[str]:
    shown = [target["expr"] for board in dashboards() for panel in panels(board) for target in panel.get("targets", [])]
    return [*(rule["expr"] for rule in alerts()), *shown]


# --- what an expression of PromQL names ---


def selected(expression: str) -> list[tuple[str, set[str]]]:
    """The series that an expression asks for, each with the labels that it is narrowed by."""
    bare = _without_texts(expression)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    found = []
    for match in re.finditer(r"(?<![\w$])([a-zA-Z_:][\w:]*)\s*(\(|\{[^}]*\})?", re.sub(r"\[[^]]*\]", "", bare)):
        name, follows = match[1], match[2] or ""
        if follows != "(" and name not in KEYWORDS:
            found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", follows))))
    return found


def grouped_by(expression: str) -> set[str]:
    groups = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", _without_texts(expression))
    return {label.strip() for group in groups for label in group.split(",") if label.strip()}


def _without_texts(expression: str) -> str:
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)


def test_series_and_labels_are_found_in_expressions() -> None:
    expression = 'sum by (le, route) (rate(a_bucket{x=~"b{c}", y!="d"}[5m])) / (e or vector(0)) > 2 and time() - f{z="by (q)"} > 1'
    assert selected(expression) == [("a_bucket", {"x", "y"}), ("e", set()), ("f", {"z"})]
    assert grouped_by(expression) == {"le", "route"}


# --- what there is ---


@pytest.fixture
async def full(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """With all that is set that has metrics of its own."""
    settings = structs.replace(hub.settings, broker_url="stomp://nobody", events_redis_stream="events")
    monkeypatch.setattr(hub.parts, "settings", settings)
    return hub


async def declared(hub: Hub) -> dict[str, set[str]]:
    """Every series that a scrape may hold, with its labels."""
    async with hub.parts.reads.connection(None, None) as connection:
        figures = await gauges.figures(connection, hub.parts.settings)
        found: list[Metric] = [*gauges.about_this_hub(is_up=True), *figures]
    labels_of: dict[str, set[str]] = {}
    for metric in found:
        labels_of |= _series(metric.name, metric.type, getattr(metric, "_labelnames", ()))
    for collector in set(REGISTRY._names_to_collectors.values()):
        if (name := getattr(collector, "_name", None)) is not None:
            labels_of |= _series(name, getattr(collector, "_type"), getattr(collector, "_labelnames"))  # noqa: B009
    return labels_of


def _series(name: str, kind: str, labels: Any) -> dict[str, set[str]]:
    return {name + suffix: {*labels, *(("le",) if suffix == "_bucket" else ())} for suffix in SUFFIXES.get(kind, ())}


async def test_every_metric_that_is_named_is_on_the_metrics_page_with_its_labels(full: Hub) -> None:
    text = (await full.admin.get("/metrics")).text
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    scraped = {name + suffix for name, kind in types.items() for suffix in SUFFIXES.get(kind, ())}
    scraped |= {name for name, kind in types.items() if kind == "counter"}
    known = await declared(full) | OF_PROMETHEUS
    for expression in expressions():
        named = selected(expression)
        assert named, expression
        for name, labels in named:
            assert name in known, f"{name} in {expression}"
            assert labels <= known[name] | OF_SCRAPES, expression
            assert name in scraped | set(OF_PROMETHEUS), f"{name} is on no page"
        common = set.union(*(known[name] for name, _ in named)) | OF_SCRAPES
        assert grouped_by(expression) <= common, expression


def test_expressions_are_whole() -> None:
    for expression in expressions():
        bare = _without_texts(expression)
        for opening, closing in ("()", "[]", "{}"):
            assert bare.count(opening) == bare.count(closing), expression
        for window in re.findall(r"\[([^]]*)\]", bare):
            assert re.fullmatch(rf"{DURATION}|\$__rate_interval", window), expression


# --- alerts ---


def test_alerts_are_what_prometheus_takes() -> None:
    """The fields of its documentation (Alerting rules); `promtool` checks as much."""
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 0
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
        assert re.fullmatch(r"Hub[A-Za-z]+", rule["alert"])
        assert re.fullmatch(DURATION, rule.get("for", "0s"))
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert re.search(r"[<>=]=?\s*[\d.]+\s*$", rule["expr"].strip()), "an alert compares"


def test_every_alert_says_what_to_do() -> None:
    anchors = set(_runbook())
    for rule in alerts():
        assert rule["annotations"]["summary"]
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert file == "README.md"
        assert anchor in anchors, rule["alert"]
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert used <= grouped_by(rule["expr"]) | OF_SCRAPES, rule["alert"]


def test_codes_that_the_runbook_names_exist() -> None:
    """Of connectors, and of answers."""
    of_answers = [table for table in vars(error_codes).values() if isinstance(table, dict)]
    known = {*EXPLANATIONS, *(code for table in of_answers for code in table)}
    for anchor, text in _runbook().items():
        assert set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text)) - NO_CODES <= known, anchor


def test_every_entry_of_the_runbook_names_the_alerts_that_lead_to_it() -> None:
    named = {anchor: set(re.findall(r"`(Hub[A-Za-z]+)`", text)) for anchor, text in _runbook().items()}
    led = {anchor: set[str]() for anchor in named}
    for rule in alerts():
        led[rule["annotations"]["runbook"].partition("#")[2]].add(rule["alert"])
    assert {anchor: names for anchor, names in named.items() if names} == {a: n for a, n in led.items() if n}


def _runbook() -> dict[str, str]:
    """The entries of the section "When something is wrong", by their anchors on GitHub."""
    text = README.read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition("\n## When something is wrong\n")[2], flags=re.MULTILINE)[0]
    entries = re.split(r"^### ", section, flags=re.MULTILINE)[1:]
    return {_anchor(entry.partition("\n")[0]): entry for entry in entries}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


# --- dashboards ---


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_can_be_imported(path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    assert board["uid"]
    assert board["title"]
    assert "id" not in board, "that is Grafana's to give"
    assert [each["type"] for each in board["templating"]["list"] if each["name"] == "datasource"] == ["datasource"]
    shown = list(panels(board))
    assert len({panel["id"] for panel in shown}) == len(shown) > 0
    for panel in shown:
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    _lie_apart([panel["gridPos"] for panel in shown])


def _lie_apart(places: list[dict[str, int]]) -> None:
    taken: set[tuple[int, int]] = set()
    for place in places:
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


async def test_the_dashboards_show_every_metric_of_the_hub(full: Hub) -> None:
    """One that nobody sees is one that nobody needs. A histogram is shown by one of its series."""
    shown = {name for expression in expressions() for name, _ in selected(expression)}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in await declared(full) if name.startswith("hub_")}
    families = {name for name in families if not name.startswith("hub_tests_")}
    assert families - {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} == set()
