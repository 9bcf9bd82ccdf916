"""What a scrape holds: few series, whatever is asked of the hub."""

from app.core import metrics
from app.core.exchange import Exchange
from app.core.metrics import count_request, exposition


def counted(method: str, status: int = 405) -> None:
    exchange = Exchange({"type": "http", "method": method, "path": "/", "query_string": b"", "headers": []})
    exchange.status = status
    count_request(exchange)


def test_made_up_methods_share_one_series_and_leave_nothing_behind() -> None:
    counted("MADE-UP")
    before = len(metrics._children)
    for number in range(100):
        counted(f"MADE-UP-{number}")
    assert len(metrics._children) == before
    assert 'method="other"' in exposition().decode()
    assert "MADE-UP" not in exposition().decode()


def test_a_series_has_no_second_one_that_says_when_it_began() -> None:
    counted("GET")
    assert "_created" not in exposition().decode()
