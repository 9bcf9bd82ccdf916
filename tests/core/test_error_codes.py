"""The codes of errors are closed: one table, which the types, the answers and the OpenAPI document share."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import httpx
import pytest

from app.api.openapi import openapi_document
from app.commands.openapi import routes_alone
from app.connectors.contract import failures
from app.core.error_codes import Code, FaultCode
from app.core.errors import ERRORS, Conflict, ErrorBody, HubError, NotFound, Unavailable
from app.domain.source_work.failures import SOURCE_CODES
from tests import declared
from tests.declared import hold_against_the_document


def test_every_code_has_a_status_and_a_sentence() -> None:
    known = {code for error in ERRORS for code in error.sentences}
    assert known == set(get_args(Code))
    assert len({error.status for error in ERRORS}) == len(ERRORS)
    for error in ERRORS:
        assert all(sentence.endswith(".") for sentence in error.sentences.values())
        assert error().body("r").detail == next(iter(error.sentences.values()))


def test_a_code_that_is_not_in_the_list_cannot_be_raised() -> None:
    unknown: Any = "mend_it"
    with pytest.raises(KeyError):
        Conflict("Mend it.", code=unknown)
    elsewhere: Any = "not_found"
    with pytest.raises(KeyError):
        Conflict(code=elsewhere)


def test_a_class_whose_codes_have_no_sentences_cannot_be_defined() -> None:
    with pytest.raises(TypeError, match="differ"):

        class Teapot(HubError[Literal["teapot", "kettle"]]):
            status = 418
            sentences = {"teapot": "I am a teapot."}


@pytest.mark.slow
def test_the_type_checker_refuses_a_code_of_another_status(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from app.core.errors import Conflict, Fault, NotFound\n"
        "def one() -> None:\n    raise Conflict(code='nmae_taken')\n"
        "def other() -> None:\n    raise NotFound(code='name_taken')\n"
        "def third() -> Fault:\n    return Fault('name', 'unheard_of', 'is wrong')\n"
        "def right() -> None:\n    raise Conflict(code='name_taken')\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(wrong)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    lines = [line.split(":")[1] for line in found.stdout.splitlines() if line.startswith(str(wrong))]
    assert lines == ["3", "5", "7"], found.stdout + found.stderr


def test_every_failure_of_a_connector_has_a_code_over_http() -> None:
    never_raised = {"ok", "not_applicable", "not_reached"}
    assert set(SOURCE_CODES) == set(get_args(failures.Code)) - never_raised - {"not_found"}
    source_codes = {code for code in Conflict.sentences if code.startswith("source_")} - {"source_deleted"}
    assert set(SOURCE_CODES.values()) == source_codes


def test_the_document_lists_the_codes() -> None:
    document = declared.document()
    schemas = document["components"]["schemas"]
    assert set(schemas["ErrorCode"]["enum"]) == set(get_args(Code))
    assert set(schemas["FaultCode"]["enum"]) == set(get_args(FaultCode))
    login = document["paths"]["/api/v1/auth/login"]["post"]
    assert login["x-error-codes"]["401"] == ["invalid_credentials", "mfa_required"]
    assert "`invalid_credentials`" in login["responses"]["401"]["description"]
    assert "- `invalid_credentials`: Email address or password is wrong. (401)" in schemas["ErrorCode"]["description"]


def test_another_field_in_the_body_of_one_status_is_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class UnavailableBody(ErrorBody, kw_only=True):
        is_planned: bool
        """Whether somebody announced it."""

    monkeypatch.setattr(Unavailable, "body_type", UnavailableBody)
    monkeypatch.setattr(Unavailable, "is_planned", True, raising=False)
    assert getattr(Unavailable().body("r"), "is_planned", None) is True
    response = openapi_document(routes_alone())["components"]["responses"]["Unavailable"]["content"]["application/json"]
    assert response["schema"] == {"$ref": "#/components/schemas/UnavailableBody"}
    assert response["example"]["is_planned"] is True
    assert "is_planned" not in NotFound().body("r").__struct_fields__


@pytest.mark.anyio
async def test_an_answer_with_a_code_that_nobody_declared_fails_the_test_that_got_it() -> None:
    request = httpx.Request("POST", "http://hub.test/api/v1/auth/login")
    body = {"detail": "x", "code": "name_taken", "request_id": "r"}
    with pytest.raises(AssertionError, match="login does not declare 409 name_taken"):
        await hold_against_the_document(httpx.Response(409, json=body, request=request))
