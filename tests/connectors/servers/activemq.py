"""ActiveMQ of Debian, with STOMP in place of its own protocol: started in a folder of its own, killed with -9 and started
again on what it has stored."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificate

from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import place, private_folder, program, unprivileged, wait_for_port
from tests.ports import free_port

HOME = Path("/usr/share/activemq")
USER = "hub"
PASSWORD = "pass:word/with@signs"
MOST_BYTES = 2_500_000
"""Of one message; a larger one is refused."""
STARTS_WITHIN_S = 90


class ActiveMq:
    def __init__(self, folder: Path) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir()
        if who := unprivileged():
            os.chown(folder / "data", who["user"], who["group"])
        place(folder / "keys.p12", _key_store())
        place(folder / "ca.crt", authority().pem)
        place(folder / "activemq.xml", _CONFIG.format(folder=folder, server=self, **_WORDS).encode())
        place(folder / "log4j2.properties", b"rootLogger.level = OFF\n")

    @property
    def ca_file(self) -> Path:
        return self._folder / "ca.crt"

    def start(self) -> None:
        command = [
            program("java"),
            *("-Xms32m", "-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"),
            *(f"-Dactivemq.home={HOME}", f"-Dactivemq.base={self._folder}", f"-Dactivemq.conf={self._folder}"),
            *(f"-Dactivemq.data={self._folder}/data", f"-Djava.io.tmpdir={self._folder}/data"),
            *("-jar", str(HOME / "bin/activemq.jar"), "start", f"xbean:file:{self._folder}/activemq.xml"),
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self._folder / "data", **unprivileged()
            )
        wait_for_port(self.port, self._process, STARTS_WITHIN_S)
        wait_for_port(self.tls_port, self._process, STARTS_WITHIN_S)

    def kill(self) -> None:
        """With -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def activemq() -> Iterator[ActiveMq]:
    if not (HOME / "bin/activemq.jar").exists():
        program("activemq")
        pytest.fail("activemq is installed without its launcher")
    with private_folder() as folder:
        server = ActiveMq(folder)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _key_store() -> bytes:
    certificate, key = authority().certificate_for("localhost")
    private = load_pem_private_key(key, None)
    return pkcs12.serialize_key_and_certificates(
        b"broker",
        private,  # type: ignore[arg-type]
        load_pem_x509_certificate(certificate),
        None,
        BestAvailableEncryption(b"keystore"),
    )


_WORDS = {"user": USER, "password": PASSWORD, "most": MOST_BYTES}
_CONFIG = """
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans
                      http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
                      http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="hub" schedulerSupport="false"
          dataDirectory="{folder}/data" useShutdownHook="false">
    <destinationPolicy>
      <policyMap><policyEntries>
        <policyEntry topic=">" producerFlowControl="true" memoryLimit="32mb"/>
      </policyEntries></policyMap>
    </destinationPolicy>
    <persistenceAdapter><kahaDB directory="{folder}/data/kahadb"/></persistenceAdapter>
    <plugins>
      <simpleAuthenticationPlugin>
        <users><authenticationUser username="{user}" password="{password}" groups="hubs"/></users>
      </simpleAuthenticationPlugin>
      <authorizationPlugin><map><authorizationMap><authorizationEntries>
        <authorizationEntry topic="hub.*.org.>" read="hubs" write="hubs" admin="hubs"/>
        <authorizationEntry topic="ActiveMQ.Advisory.>" read="hubs" write="hubs" admin="hubs"/>
      </authorizationEntries></authorizationMap></map></authorizationPlugin>
    </plugins>
    <sslContext><sslContext keyStore="file:{folder}/keys.p12" keyStorePassword="keystore" keyStoreType="PKCS12"/></sslContext>
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit="64 mb"/></memoryUsage>
      <storeUsage><storeUsage limit="1 gb"/></storeUsage>
      <tempUsage><tempUsage limit="100 mb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors>
      <transportConnector name="stomp" uri="stomp://127.0.0.1:{server.port}?wireFormat.maxDataLength={most}"/>
      <transportConnector name="stomp+ssl" uri="stomp+ssl://127.0.0.1:{server.tls_port}?wireFormat.maxDataLength={most}"/>
    </transportConnectors>
  </broker>
</beans>
"""
