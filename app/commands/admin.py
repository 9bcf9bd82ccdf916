"""`hub create-admin`, `hub reset-password`, and the first admin of an empty database."""

import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from app.commands.database import CommandFailed, bring_up_to_date, database
from app.commands.keys import refuse_replaced_keys
from app.core.tenancy import DEFAULT_SLUG, DEFAULT_TENANT_ID
from app.settings import Settings

if TYPE_CHECKING:
    from app.domain.parts import Parts
    from app.domain.users import admins

T = TypeVar("T")


def create_admin(settings: Settings, email: str, *, tenant: str, from_stdin: bool) -> int:
    from app.domain.users import admins

    async def refuse_unfit(parts: "Parts") -> None:
        await admins.refuse_unfit_address(parts, email, tenant_id=await _id_of(parts, tenant))

    async def make(parts: "Parts", password: str) -> object:
        admin = admins.NewAdmin(email, password)
        return await admins.create_admin(parts, admin, tenant_id=await _id_of(parts, tenant))

    done = f"{email} is an admin{_where(tenant)} now."
    return _with_password(settings, refuse_unfit, make, from_stdin=from_stdin, done=done)


def reset_password(settings: Settings, email: str, *, tenant: str, from_stdin: bool) -> int:
    from app.domain.users import admins

    async def refuse_unknown(parts: "Parts") -> object:
        return await admins.id_by_address(parts, email, tenant_id=await _id_of(parts, tenant))

    async def reset(parts: "Parts", password: str) -> object:
        return await admins.reset_password(parts, email, password, tenant_id=await _id_of(parts, tenant))

    signed_out = "The account is not locked, and whoever was signed in as them is signed out."
    done = f"{email}{_where(tenant)} has a new password. {signed_out}"
    return _with_password(settings, refuse_unknown, reset, from_stdin=from_stdin, done=done)


async def _id_of(parts: "Parts", tenant: str) -> UUID:
    from app.domain.tenants.repositories import id_of_slug

    async with parts.sessions(DEFAULT_TENANT_ID) as session:
        return await id_of_slug(session, tenant)


def _where(tenant: str) -> str:
    return "" if tenant == DEFAULT_SLUG else f" of {tenant}"


def _with_password(
    settings: Settings,
    refuse_unfit: "Callable[[Parts], Awaitable[object]]",
    act: "Callable[[Parts, str], Awaitable[object]]",
    *,
    from_stdin: bool,
    done: str,
) -> int:
    """Ask for a password, after what can be refused without one, and do something with it in the database."""
    from app.core.errors import HubError

    try:
        _refuse_without_terminal(from_stdin=from_stdin)
        with database(settings) as target:
            bring_up_to_date(target)
            refuse_replaced_keys(settings, target.app_url)
            asyncio.run(act_in(settings, target.app_url, refuse_unfit))
            password = sys.stdin.readline().rstrip("\n") if from_stdin else _asked_password()
            asyncio.run(act_in(settings, target.app_url, lambda parts: act(parts, password)))
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    except HubError as error:
        print(error.detail, *(f"{fault.path}: {fault.message}" for fault in error.errors), sep="\n", file=sys.stderr)
        return 1
    print(done)
    return 0


def _refuse_without_terminal(*, from_stdin: bool) -> None:
    if not from_stdin and not sys.stdin.isatty():
        raise CommandFailed("There is no terminal to ask for the password: send it with `--password-stdin`.")


def _asked_password() -> str:
    try:
        return getpass.getpass("Password: ")
    except EOFError:
        raise CommandFailed("No password was given.") from None


async def act_in(settings: Settings, url: str, act: "Callable[[Parts], Awaitable[T]]") -> "T":
    from app.runtime import prepare_parts

    parts = prepare_parts(settings, url)
    try:
        return await act(parts)
    finally:
        await parts.close()


def ensure_first_admin(settings: Settings, url: str) -> "admins.NewAdmin | None":
    """Make the first admin where there is no user. Answers the admin, to be shown once."""
    from app.domain.users import admins

    admin = admins.generated(settings.admin_email)
    if settings.admin_email and settings.admin_password:
        admin = admins.NewAdmin(settings.admin_email, settings.admin_password)
    made = asyncio.run(act_in(settings, url, lambda parts: admins.create_first_admin(parts, admin)))
    return admin if made else None
