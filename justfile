# What developers do all the time. `uv run --group dev just` lists it; everything works from a fresh clone.

set shell := ["bash", "-euo", "pipefail", "-c"]

_list:
    @just --list --unsorted

# install everything for development into .venv
setup:
    uv sync --group bench --group clients

# serve on http://127.0.0.1:8000 with an embedded PostgreSQL in .hub/
dev *ARGS:
    uv run hub serve {{ARGS}}

# the tests that need nothing but Python
test *ARGS:
    uv run --group dev pytest {{ARGS}}

# all tests; a server or browser that is missing is a failure (see `services`)
test-all *ARGS:
    CI=true uv run --group dev --group clients pytest -m "" {{ARGS}}

# every data source type against its servers; one that is missing is a failure
test-connectors *ARGS:
    CI=true uv run --group dev pytest -m "" tests/connectors {{ARGS}}

# every fault that a hub has to outlive, twenty times each where chance plays a part, and a line for each
test-faults *ARGS:
    CI=true FAULT_SEEDS=20 uv run --group dev pytest -m fault --fault-table -n 0 {{ARGS}}

# style; `just lint --fix` mends what it can
lint *ARGS:
    uv run --group dev ruff check {{ARGS}} .
    uv run --group dev ruff format {{ if ARGS == "--fix" { "" } else { "--check" } }} .

# types, strictly
types:
    uv run --group bench mypy

# bring the database to the newest revision: `just migrate`, `just migrate down`, `just migrate status`
migrate DIRECTION="up":
    uv run hub migrate {{DIRECTION}}

# an empty migration with the next number: `just new-migration "add webhooks"`
new-migration TITLE:
    uv run --group dev alembic -c db/alembic.ini revision -m "{{TITLE}}" \
        --rev-id "$(uv run --group dev python -c 'from app.core.migrations import head; print(f"{int(head()) + 1:04}")')"

# bring the tables of the README up to date, and write dist/openapi.json
docs:
    uv run --group dev python -m tests.readme_tables
    mkdir -p dist
    uv run hub openapi --out dist/openapi.json

# the main job, end to end, on real flights
demo:
    uv run hub demo

# compare the hub with what else could do its work; writes bench/RESULTS.md
bench *ARGS:
    uv run --group bench python -m bench {{ARGS}}

# what to run before every commit
check: lint types specs test

# requirements and scenarios
specs:
    OPENSPEC_TELEMETRY=0 npx --yes @fission-ai/openspec@1.13 validate --all --strict --no-interactive

# install the servers and browsers that `test-all`, `test-connectors` and `bench` need, on Debian as root
services:
    bash .ci/services

# everything that a change has to pass
ci:
    bash .ci/run
