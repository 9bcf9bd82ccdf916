"""TLS with pinned addresses: contexts that know the name to expect, a handshake, and what its failure means."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator

from app.connectors.contract import pem
from app.connectors.contract.failures import ConnectorError
from app.connectors.network.dialling import silent
from app.core.egress import Pinned


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
        context.load_verify_locations(cadata=pem.certificates(ca_certificate))
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
    """OpenSSL wants a file. The certificate may be followed by those that lead from it to the CA."""
    try:
        key = pem.private_key(key)
        if passphrase is None and pem.is_encrypted(pem.blocks(key)[0]):
            raise ConnectorError("invalid_configuration", "client_key is encrypted; it needs client_key_passphrase.")
        with in_memory(key + pem.certificates(certificate)) as path:
            context.load_cert_chain(path, password=lambda: passphrase or "")
    except (ssl.SSLError, ValueError):
        raise ConnectorError(
            "invalid_configuration", "client_certificate and client_key do not belong together, or are not in PEM form."
        ) from None


@contextlib.contextmanager
def in_memory(text: str) -> Iterator[str]:
    """The path of a file that holds the text as long as it is needed, and that nobody else can open."""
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
