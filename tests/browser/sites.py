"""Sites of others that a browser comes to: receivers that run beside a test which has no loop."""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio.from_thread import start_blocking_portal

from tests.receivers import Answering, receiving


@contextmanager
def site(answering: Answering, address: str = "127.0.0.1") -> Iterator[str]:
    """Its URL, for as long as the block lasts."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(receiving(answering, host=address, address=address)) as receiver,
    ):
        yield f"http://{address}:{receiver.port}"
