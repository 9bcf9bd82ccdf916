"""From settings to running parts: which keys, which database. Shared by the server, the worker and the commands."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.sealing import KeyRing
from app.core.signing_keys import SigningKey, generate_signing_key, read_signing_keys
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from app.domain.parts import Parts

SECRET_KEYS_FILE = "secret-keys"  # noqa: S105 - the name of a file
SIGNING_KEYS_FILE = "signing-keys.pem"
SEALING_KEYS_FILE = "sealing-keys.pem"


def prepare_parts(settings: Settings, database_url: str) -> "Parts":
    """Raises SettingsError where a key is needed and not given, or cannot be read."""
    from app.domain.parts import Parts  # not above: who only wants the keys need not wait for all of the hub

    return Parts(
        settings,
        database_url=database_url,
        key_ring=load_key_ring(settings),
        signing_keys=load_signing_keys(settings),
        signing_keys_file=signing_keys_path(settings),
    )


def start_tracing(settings: Settings, *, role: str) -> None:
    """Once in each process, before its parts are made; nothing where no collector is named."""
    if settings.otlp_endpoint is not None:
        from app.core.telemetry import start_sending  # not above: it comes with an extra, and takes its time

        start_sending(settings.otlp_endpoint, role=role)


def is_key_ring_missing(settings: Settings) -> bool:
    """Whether `load_key_ring` would make one."""
    return settings.secret_keys is None and not (settings.data_dir / SECRET_KEYS_FILE).exists()


def load_key_ring(settings: Settings) -> KeyRing:
    """The ring of HUB_SECRET_KEYS; in development one that is made once and kept in the data folder."""
    if settings.secret_keys is not None:
        return KeyRing.parse(settings.secret_keys)
    path = _generated(settings, SECRET_KEYS_FILE, "HUB_SECRET_KEYS", lambda: KeyRing.generate().encode())
    try:
        return KeyRing.parse(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError) as error:
        raise SettingsError([f"HUB_SECRET_KEYS: {path} cannot be read as a key ring: {error}"]) from None


def signing_keys_path(settings: Settings) -> Path:
    return settings.signing_keys_file or settings.data_dir / SIGNING_KEYS_FILE


def sealing_keys_path(settings: Settings) -> Path:
    return settings.sealing_keys_file or settings.data_dir / SEALING_KEYS_FILE


def load_signing_keys(settings: Settings) -> list[SigningKey]:
    """The keys of HUB_SIGNING_KEYS_FILE; in development one that is made once and kept in the data folder."""
    return _read_keys(settings, settings.signing_keys_file, SIGNING_KEYS_FILE, "HUB_SIGNING_KEYS_FILE")


def load_sealing_keys(settings: Settings) -> list[SigningKey]:
    """The keys of HUB_SEALING_KEYS_FILE; in development one that is made once and kept in the data folder. For workers:
    whoever only serves needs none."""
    keys = _read_keys(settings, settings.sealing_keys_file, SEALING_KEYS_FILE, "HUB_SEALING_KEYS_FILE")
    if any(key.algorithm != "EdDSA" for key in keys):
        path = sealing_keys_path(settings)
        raise SettingsError([f"HUB_SEALING_KEYS_FILE: {path} holds a key that is not of Ed25519"])
    return keys


def _read_keys(settings: Settings, given: Path | None, name: str, variable: str) -> list[SigningKey]:
    path = given or _generated(settings, name, variable, generate_signing_key)
    try:
        return read_signing_keys(path)
    except (OSError, ValueError) as error:
        raise SettingsError([f"{variable}: {error}"]) from None


def _generated(settings: Settings, name: str, variable: str, generate: Callable[[], bytes]) -> Path:
    """A file of mode 0600, made by whichever process comes first. Outside of development nothing is generated."""
    if not settings.is_development:
        raise SettingsError([f"{variable}: is needed in production"])
    path = settings.data_dir / name
    if not path.exists():
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{name}.{os.getpid()}")
        draft.touch(0o600)
        draft.write_bytes(generate())
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path
