"""Where one server lives, and as whom it runs."""

import os
import pwd
import secrets
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.core.embedded.failures import EmbeddedFailed
from app.core.embedded.names import SYSTEM_HOME

ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""All that PostgreSQL's programs get to see of ours."""


@dataclass(frozen=True, slots=True)
class Account:
    """The OS user that PostgreSQL, which refuses to be root, runs as where the hub is root."""

    uid: int
    gid: int

    def __str__(self) -> str:
        with suppress(KeyError):
            return pwd.getpwuid(self.uid).pw_name
        return f"uid {self.uid}"


@dataclass(frozen=True, slots=True)
class Site:
    """Where one server lives and how it runs."""

    cluster: Path
    binaries: Path
    account: Account | None
    log: Path
    durable: bool

    @property
    def marker(self) -> str:
        """Names the cluster in the titles of its processes; of its inode, so that a copy of the folder has another."""
        status = self.cluster.stat()
        return f"hub-{status.st_dev:x}-{status.st_ino:x}"


def account_for(cluster: Path) -> Account | None:
    """None where the hub is not root. A cluster that exists is run by whoever it belongs to."""
    if os.geteuid() != 0:
        return None
    if cluster.exists():
        status = cluster.stat()
        if status.st_uid == 0:
            raise EmbeddedFailed(
                f"The cluster {cluster} belongs to root, as whom PostgreSQL does not run: give it to another user."
            )
        return Account(status.st_uid, status.st_gid)
    for name in ("nobody", "postgres"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return Account(user.pw_uid, user.pw_gid)
    raise EmbeddedFailed(
        "PostgreSQL does not run as root, and there is no user `nobody` or `postgres` to run it: "
        "start the hub as another user, or set HUB_DATABASE_URL."
    )


def home_for(data_dir: Path, account: Account | None) -> Path:
    """The folder that holds the cluster: the data folder, or one below SYSTEM_HOME that the account can reach."""
    link = data_dir / "postgres"
    if link.is_symlink():
        home = link.resolve().parent
        if home.is_dir():
            return home
        raise EmbeddedFailed(
            f"The cluster of {data_dir} was kept in {home}, which is gone: "
            f"bring it back, or delete {link} to start empty."
        )
    if can(account, 'cd -- "$1"', data_dir):
        return data_dir
    if link.exists():
        raise EmbeddedFailed(
            f"The user {account}, to whom the cluster {link} belongs, cannot reach it: open its parent folders."
        )
    home = SYSTEM_HOME / secrets.token_hex(8)
    make_folder(SYSTEM_HOME, 0o755)
    make_folder(home, 0o711)
    link.symlink_to(home / "postgres")
    return home


def can(account: Account | None, script: str, argument: Path) -> bool:
    """Whether the account can: asked of the system itself, since mode bits are not all there is."""
    if account is None:
        return True
    ended = subprocess.run(
        ["/bin/sh", "-c", script, "sh", argument],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=ENVIRONMENT, cwd="/", user=account.uid, group=account.gid, extra_groups=[], check=False,
    )  # fmt: skip
    return ended.returncode == 0


def make_folder(path: Path, mode: int) -> None:
    """`mode` holds whatever the umask is; a folder that was there keeps its own, new parents get the usual one."""
    with suppress(FileExistsError):
        path.mkdir(parents=True)
        path.chmod(mode)
