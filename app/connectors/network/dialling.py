"""Opening connections to pinned addresses, and saying in our own words why one did not open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Final

from app.connectors.contract.failures import ConnectorError
from app.core.egress import Pinned

_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


async def dial(pinned: Pinned, port: int, timeout_s: float) -> socket.socket:
    """A connected, non-blocking socket to the first address that answers; all of them together have `timeout_s`."""
    failure = ConnectorError("host_unreachable", f"{pinned.host} has no address to try.")
    try:
        async with asyncio.timeout(timeout_s):
            for address in pinned.addresses:
                try:
                    return await _connect(address, port)
                except TimeoutError:
                    raise
                except OSError as error:
                    failure = unreachable(error, pinned.host, port)
    except TimeoutError:
        raise ConnectorError(
            "connect_timeout", f"{pinned.host} did not answer on port {port} within {timeout_s:g} s."
        ) from None
    raise failure


async def _connect(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def unreachable(error: OSError, host: str, port: int) -> ConnectorError:
    """What a failed connect means."""
    if isinstance(error, ConnectionRefusedError):
        return ConnectorError("connection_refused", f"{host} refused the connection on port {port}.")
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return hung_up(host, port)
    if error.errno == errno.ETIMEDOUT:
        return ConnectorError("connect_timeout", f"{host} did not answer on port {port}.")
    if error.errno in _UNREACHABLE:
        return ConnectorError("host_unreachable", f"There is no route to {host}.")
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return ConnectorError("host_unreachable", f"{host} could not be reached on port {port} ({name}).")


def hung_up(host: str, port: int) -> ConnectorError:
    return ConnectorError("connection_lost", f"{host} closed the connection on port {port}.")


def silent(host: str, port: int, timeout_s: float) -> ConnectorError:
    return ConnectorError("timeout", f"{host} took the connection on port {port} and said nothing for {timeout_s:g} s.")


async def ask(sock: socket.socket, question: bytes, pinned: Pinned, port: int, timeout_s: float) -> bytes:
    """Sends a few bytes and gives the first ones of the answer. Raises `timeout` for a server that says nothing."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            await loop.sock_sendall(sock, question)
            answer = await loop.sock_recv(sock, 4096)
    except TimeoutError:
        raise silent(pinned.host, port, timeout_s) from None
    except OSError:
        raise hung_up(pinned.host, port) from None
    if not answer:
        raise hung_up(pinned.host, port)
    return answer


async def speaks_http(pinned: Pinned, port: int, timeout_s: float) -> bool:
    """Whether a server that said nothing to another protocol does to this one: it waits for the end of a request."""
    try:
        async with dialled(pinned, port, timeout_s) as sock:
            answer = await ask(sock, b"HEAD / HTTP/1.0\r\n\r\n", pinned, port, timeout_s)
    except ConnectorError:
        return False
    return answer.startswith(b"HTTP/")


# TLS ------------------------------------------------------------------------------------------------------------------


class NamedContext(ssl.SSLContext):
    """Checks certificates against one fixed name, whatever the driver believes to be talking to: a driver that is given
    a pinned address takes that for the name."""

    server_name: str = ""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.server_name or server_hostname, session)


def tls_context(
    server_name: str,
    *,
    verify_certificate: bool = True,
    verify_name: bool = True,
    ca_certificate: str | None = None,
    client_certificate: str | None = None,
    client_key: str | None = None,
    client_key_passphrase: str | None = None,
) -> NamedContext:
    """A context for TLS 1.2 and newer. Without `ca_certificate` the system's CAs count, with it only that one does.

    Raises `invalid_configuration` for PEM texts that cannot be read.
    """
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = server_name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = verify_certificate and verify_name
    context.verify_mode = ssl.CERT_REQUIRED if verify_certificate else ssl.CERT_NONE
    if verify_certificate:
        _trust(context, ca_certificate)
    if client_certificate is not None:
        _identify(context, client_certificate, client_key or "", client_key_passphrase)
    return context


def _trust(context: ssl.SSLContext, ca_certificate: str | None) -> None:
    if ca_certificate is None:
        _trust_the_system(context)
        return
    try:
        context.load_verify_locations(cadata=ca_certificate)
    except (ssl.SSLError, ValueError):
        raise ConnectorError("invalid_configuration", "ca_certificate is not a certificate in PEM form.") from None


def _trust_the_system(context: ssl.SSLContext) -> None:
    """Slim images have no CA folder; certifi, which comes with httpx, stands in for it there."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and os.listdir(paths.capath)):
        context.load_default_certs()
        return
    import certifi

    context.load_verify_locations(cafile=certifi.where())


def _identify(context: ssl.SSLContext, certificate: str, key: str, passphrase: str | None) -> None:
    """OpenSSL wants files: an anonymous one in memory, or a private temporary one where there is no such thing."""
    try:
        with _as_file(f"{key}\n{certificate}\n") as path:
            context.load_cert_chain(path, password=lambda: passphrase or "")
    except (ssl.SSLError, ValueError):
        raise ConnectorError(
            "invalid_configuration", "client_certificate and client_key do not belong together, or are not in PEM form."
        ) from None


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    import tempfile

    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(handle, text.encode())
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
    else:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            yield file.name


async def handshake(sock: socket.socket, context: ssl.SSLContext, pinned: Pinned, port: int, timeout_s: float) -> str:
    """Does a TLS handshake on a connected socket, hangs up, and gives the version agreed on, such as `TLSv1.3`."""
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_connection(
            asyncio.Protocol,
            sock=sock,
            ssl=context,
            server_hostname=pinned.host,
            ssl_handshake_timeout=timeout_s,
            ssl_shutdown_timeout=0.1,
        )
    except (OSError, ssl.SSLError, EOFError) as error:
        raise tls_failure(error, pinned.host, port, timeout_s) from None
    version = str(transport.get_extra_info("ssl_object").version())
    transport.abort()
    return version


def tls_failure(error: BaseException, host: str, port: int, timeout_s: float) -> ConnectorError:
    """What a failed handshake means. OpenSSL's phrase for a bad certificate names nothing but the host."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return ConnectorError("tls_certificate_invalid", f"The certificate of {host} is not trusted: {why}.")
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "unknown").replace("_", " ").lower()
        if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}:
            return ConnectorError("tls_unavailable", f"{host} does not speak TLS on port {port}.")
        return ConnectorError("tls_failed", f"The TLS handshake with {host} failed: {reason}.")
    if isinstance(error, TimeoutError) or "timed out" in str(error) or "is taking longer" in str(error):
        return silent(host, port, timeout_s)
    return ConnectorError("tls_failed", f"{host} hung up during the TLS handshake on port {port}.")


@contextlib.asynccontextmanager
async def dialled(pinned: Pinned, port: int, timeout_s: float) -> AsyncIterator[socket.socket]:
    """A socket as from `dial`, closed at the end."""
    sock = await dial(pinned, port, timeout_s)
    try:
        yield sock
    finally:
        sock.close()
