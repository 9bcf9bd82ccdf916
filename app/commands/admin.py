"""`hub create-admin`, and the first admin of an empty database."""

import asyncio
import getpass
import sys
from typing import TYPE_CHECKING

from app.commands.database import CommandFailed, bring_up_to_date, database
from app.settings import Settings

if TYPE_CHECKING:
    from app.domain.users import admins


def create_admin(settings: Settings, email: str, *, from_stdin: bool) -> int:
    from app.core.errors import HubError
    from app.domain.users import admins

    try:
        password = sys.stdin.readline().rstrip("\n") if from_stdin else _asked_password()
        with database(settings) as target:
            bring_up_to_date(target)
            asyncio.run(_create(settings, target.app_url, admins.NewAdmin(email, password)))
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    except HubError as error:
        print(error.detail, *(f"{fault.path}: {fault.message}" for fault in error.errors), sep="\n", file=sys.stderr)
        return 1
    print(f"{email} is an admin now.")
    return 0


def _asked_password() -> str:
    if not sys.stdin.isatty():
        raise CommandFailed("There is no terminal to ask for the password: send it with `--password-stdin`.")
    try:
        return getpass.getpass("Password: ")
    except EOFError:
        raise CommandFailed("No password was given.") from None


async def _create(settings: Settings, url: str, admin: "admins.NewAdmin") -> None:
    from app.domain.users import admins
    from app.runtime import prepare_parts

    parts = prepare_parts(settings, url)
    try:
        await admins.create_admin(parts, admin)
    finally:
        await parts.close()


def ensure_first_admin(settings: Settings, url: str) -> "admins.NewAdmin | None":
    """Make the first admin where there is no user. Answers the admin, to be shown once."""
    from app.domain.users import admins

    admin = admins.generated(settings.admin_email)
    if settings.admin_email and settings.admin_password:
        admin = admins.NewAdmin(settings.admin_email, settings.admin_password)
    made = asyncio.run(_create_first(settings, url, admin))
    return admin if made else None


async def _create_first(settings: Settings, url: str, admin: "admins.NewAdmin") -> bool:
    from app.domain.users import admins
    from app.runtime import prepare_parts

    parts = prepare_parts(settings, url)
    try:
        return await admins.create_first_admin(parts, admin)
    finally:
        await parts.close()
