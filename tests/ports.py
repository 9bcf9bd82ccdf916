"""Ports for servers that are told where to listen, and do so seconds later."""

import secrets
import socket

FROM, TO = 15_000, 32_000
"""Below those that Linux gives to whoever asks for any (`net.ipv4.ip_local_port_range` begins at 32768): of these one is
often somebody else's by then."""


def free_port() -> int:
    while True:
        port = FROM + secrets.randbelow(TO - FROM)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
