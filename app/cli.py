"""The `hub` command: reads what is asked for and hands it to one function each.

Start-up time is part of the product, so nothing is imported here before it is known to be needed.
"""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from app.core.invocation import HUB
from app.core.tenancy import DEFAULT_SLUG
from app.settings import Settings, SettingsError, base_path_of, load, load_url


def main(arguments: list[str] | None = None) -> None:
    """Exit code 0 when all is well, 1 when the command found something wrong, 2 when it was asked wrongly."""
    asked = _parser().parse_args(arguments)
    try:
        code = asked.run(asked)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # whoever reads has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more is said at the end
        sys.exit(1)
    except SettingsError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(HUB, description="Data Fusion Hub: the foundation service of a data platform.")
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="migrate where it may, then serve the API")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=_number(1, 65535), default=8000, help="port to listen on (default: %(default)s)")
    serve.add_argument("--workers", type=_number(1, 256), help="server processes (default: HUB_WORKERS, or 1)")
    serve.add_argument("--no-worker", action="store_true", help=f"leave jobs to `{HUB} worker` processes")
    serve.set_defaults(run=_serve)

    worker = commands.add_parser("worker", help="run jobs and schedules, as a process of its own")
    worker.set_defaults(run=_worker)

    migrate = commands.add_parser(
        "migrate", help="bring the database up to date, one revision back, or say where it is"
    )
    migrate.add_argument("direction", nargs="?", choices=("up", "down", "status"), default="up", help="(default: up)")
    migrate.add_argument("--yes", action="store_true", help="needed for `down`: what goes with the revision may go")
    migrate.set_defaults(run=_migrate)

    admin = commands.add_parser("create-admin", help="make the first or another admin")
    _add_tenant(admin)
    admin.add_argument("--email", required=True)
    admin.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    admin.set_defaults(run=_create_admin)

    reset = commands.add_parser(
        "reset-password", help="give somebody a new password, lift a lock, and sign them out everywhere"
    )
    _add_tenant(reset)
    reset.add_argument("--email", required=True)
    reset.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    reset.set_defaults(run=_reset_password)

    check = commands.add_parser(
        "check", help="say what is right and what is wrong with settings, database, keys and policy"
    )
    check.set_defaults(run=_check)

    openapi = commands.add_parser("openapi", help="print the OpenAPI 3.1 document; needs no database")
    openapi.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: standard output)")
    openapi.set_defaults(run=_openapi)

    asyncapi = commands.add_parser("asyncapi", help="print the AsyncAPI 3.0 document of the events; needs no database")
    asyncapi.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: standard output)")
    asyncapi.set_defaults(run=_asyncapi)

    demo = commands.add_parser("demo", help="the main job, end to end, on real data")
    demo.set_defaults(run=_demo)

    backup = commands.add_parser("backup", help="write the schema and all data to a file; the keys are not in it")
    backup.add_argument("file", type=Path, metavar="FILE")
    backup.set_defaults(run=_backup)

    restore = commands.add_parser("restore", help="put a backup into an empty database, or in place of what is there")
    restore.add_argument("file", type=Path, metavar="FILE")
    restore.add_argument("--replace", action="store_true", help="delete what is in the database first")
    restore.set_defaults(run=_restore)

    _add_audit(commands)
    events = commands.add_parser("events", help="publish events again, to the broker and the Redis stream")
    events.add_argument("action", choices=("redeliver",))
    events.add_argument("--tenant", metavar="SLUG", help="the organisation that is meant (default: all of them)")
    events.add_argument("--from", dest="begins_at", required=True, type=_moment, metavar="TIME", help="of it and later")
    events.add_argument("--to", dest="ends_at", required=True, type=_moment, metavar="TIME", help="of before it")
    events.add_argument("--type", metavar="TYPE", help="such as org.datafusionhub.user.created (default: all)")
    events.set_defaults(run=_events)

    keys = commands.add_parser("keys", help="the keys for stored secrets and access tokens")
    keys.add_argument(
        "action", choices=("generate", "list", "rotate"), help="a new one; who uses which; seal anew with the first"
    )
    keys.set_defaults(run=_keys)
    return parser


def _add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    actions = commands.add_parser("audit", help="verify or export the audit log").add_subparsers(
        required=True, metavar="ACTION"
    )
    verify = actions.add_parser("verify", help="name the first row or seal that is not as it was sealed")
    verify.add_argument("--file", type=Path, metavar="EXPORT", help="of an export instead of the database")
    verify.add_argument("--key", type=Path, metavar="FILE", help="public keys (PEM) that alone are believed")
    verify.add_argument(
        "--anchor", metavar="PLACE", help="copies of the seals to compare with (default: HUB_AUDIT_ANCHOR)"
    )
    verify.set_defaults(run=_audit_verify)
    export = actions.add_parser("export", help="write rows, seals and public keys to a file, a line of JSON for each")
    export.add_argument("file", type=Path, metavar="FILE")
    export.set_defaults(run=_audit_export)


def _add_tenant(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tenant", default=DEFAULT_SLUG, metavar="SLUG", help="the organisation that is meant (default: %(default)s)"
    )


class _Version(argparse.Action):
    """As argparse's own, but reads the version only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"hub {version('data-fusion-hub')}")
        parser.exit()


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"a whole number from {low} to {high} is wanted, not {text!r}")
        return int(text)

    return number


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    with suppress(OverflowError):
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    raise argparse.ArgumentTypeError(f"a time with its zone is wanted, as 2030-01-31T18:00:00Z, not {text!r}")


def _settings() -> Settings:
    return load(tty=sys.stderr.isatty())


def _serve(asked: argparse.Namespace) -> int:
    from app.commands.serve import serve

    settings = _settings()
    workers = asked.workers or settings.workers
    return serve(settings, asked.host, asked.port, workers=workers, with_worker=not asked.no_worker)


def _worker(asked: argparse.Namespace) -> int:
    from app.commands.work import work

    return work(_settings())


def _migrate(asked: argparse.Namespace) -> int:
    from app.commands.database import migrate

    return migrate(_settings(), asked.direction, is_confirmed=asked.yes)


def _create_admin(asked: argparse.Namespace) -> int:
    from app.commands.admin import create_admin

    return create_admin(_settings(), asked.email, tenant=asked.tenant, from_stdin=asked.password_stdin)


def _reset_password(asked: argparse.Namespace) -> int:
    from app.commands.admin import reset_password

    return reset_password(_settings(), asked.email, tenant=asked.tenant, from_stdin=asked.password_stdin)


def _check(asked: argparse.Namespace) -> int:
    from app.commands.check import check

    return check()


def _openapi(asked: argparse.Namespace) -> int:
    from app.commands.openapi import write_openapi

    return write_openapi(asked.out, base_path_of(load_url()))


def _asyncapi(asked: argparse.Namespace) -> int:
    from app.commands.openapi import write_asyncapi

    return write_asyncapi(asked.out, base_path_of(load_url()))


def _demo(asked: argparse.Namespace) -> int:
    from app.commands.demo import demo

    return demo(_settings())


def _backup(asked: argparse.Namespace) -> int:
    from app.commands.backup import back_up

    return back_up(_settings(), asked.file)


def _restore(asked: argparse.Namespace) -> int:
    from app.commands.backup import restore

    return restore(_settings(), asked.file, replace=asked.replace)


def _audit_verify(asked: argparse.Namespace) -> int:
    from app.commands.audit import verify

    return verify(_settings, asked.file, asked.key, asked.anchor)


def _audit_export(asked: argparse.Namespace) -> int:
    from app.commands.audit import export

    return export(_settings(), asked.file)


def _events(asked: argparse.Namespace) -> int:
    from app.commands.events import redeliver

    return redeliver(_settings(), asked.tenant, asked.begins_at, asked.ends_at, asked.type)


def _keys(asked: argparse.Namespace) -> int:
    from app.commands.keys import keys

    return keys(_settings, asked.action)
