"""What a scrape holds: few series, whatever is asked of the hub."""

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from app.core import metrics
from app.core.exchange import Exchange
from app.core.metrics import BUCKETS, _Counted, count_request, exposition


def counted(method: str, status: int = 405) -> None:
    exchange = Exchange({"type": "http", "method": method, "path": "/", "query_string": b"", "headers": []})
    exchange.status = status
    count_request(exchange)


def test_made_up_methods_share_one_series_and_leave_nothing_behind() -> None:
    counted("MADE-UP")
    before = len(metrics._series)
    for number in range(100):
        counted(f"MADE-UP-{number}")
    assert len(metrics._series) == before
    assert 'method="other"' in exposition().decode()
    assert "MADE-UP" not in exposition().decode()


def test_what_is_counted_some_at_a_time_is_what_the_library_counts_one_by_one() -> None:
    registry = CollectorRegistry()
    ours, theirs = (Histogram(name, "-", buckets=BUCKETS, registry=registry) for name in ("ours", "theirs"))
    counted_here = _Counted(ours)
    for seconds in (0.0, 0.0009, 0.001, 0.0011, 0.3, 10.0, 10.1, 30.0, 31.0, 1e9):
        theirs.observe(seconds)
        counted_here.add(seconds)
        if seconds in (0.001, 30.0):
            counted_here.write()
    counted_here.write()
    counted_here.write()
    lines = generate_latest(registry).decode().splitlines()
    shown = {
        name: [line.removeprefix(name) for line in lines if line.startswith(name) and "_created" not in line]
        for name in ("ours", "theirs")
    }
    assert len(shown["ours"]) == len(BUCKETS) + 3
    assert shown["ours"] == shown["theirs"]


def test_a_scrape_holds_what_was_counted_right_before_it() -> None:
    def seen() -> int:
        name = 'hub_http_request_duration_seconds_count{method="GET",route="unmatched",status="418"} '
        lines = exposition().decode().splitlines()
        return sum(int(float(line.removeprefix(name))) for line in lines if line.startswith(name))

    before = seen()
    for _ in range(3):
        counted("GET", status=418)
    assert seen() == before + 3
    assert seen() == before + 3


def test_a_series_has_no_second_one_that_says_when_it_began() -> None:
    counted("GET")
    assert "_created" not in exposition().decode()
