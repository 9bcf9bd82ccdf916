"""Schemathesis against a hub as it is served: the whole document, all phases, all checks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import ADMIN_EMAIL, PASSWORD, serving

HOOKS = Path(__file__).with_name("hooks.py")
REPLACED = "positive_data_acceptance,negative_data_rejection"
"""Replaced, not left out: `hooks.py` has them with the few answers that are right and that no schema can foretell."""
WHOLE = os.environ.get("SCHEMATHESIS_WHOLE") == "1"
"""Send every case of the coverage phase and many more random ones: some 50,000 requests instead of 10,000."""
EXAMPLES = 100 if WHOLE else 20
WITHIN_S = 3600 if WHOLE else 1800


PHASES = {
    "admin": "examples,coverage,fuzzing,stateful",
    "public": "examples,fuzzing,stateful",
    "scoped": "examples,fuzzing,stateful",
}
"""By who calls: the admin; somebody who holds `public` alone; somebody who may do everything on one data source. The cases
of the coverage phase are refused to the others as they are."""


@pytest.mark.slow
@pytest.mark.parametrize("caller", PHASES)
def test_every_answer_is_one_that_the_document_declares(tmp_path: Path, caller: str) -> None:
    # Nothing is dialled: generated hosts are other people's, and the answer must not hang on who they are.
    with serving(HUB_EGRESS_DENY="0.0.0.0/0,::/0") as served:
        command = [
            str(_schemathesis()),
            "run",
            f"{served.url}/openapi.json",
            "--no-color",
            "--phases",
            PHASES[caller],
        ]
        command += ["--checks", "all", "--exclude-checks", REPLACED, "--continue-on-failure"]
        command += ["--request-timeout", "20"]  # a test of a source takes up to ten seconds, and says so
        command += ["--max-examples", str(EXAMPLES), "--generation-deterministic"]
        known = {"CONTRACT_URL": served.url, "CONTRACT_EMAIL": ADMIN_EMAIL, "CONTRACT_PASSWORD": PASSWORD}
        known["CONTRACT_CALLER"] = caller
        known["CONTRACT_SAMPLED"] = "0" if WHOLE else "1"
        environment = {**os.environ, **known, "SCHEMATHESIS_HOOKS": str(HOOKS), "NO_PROXY": "*"}
        run = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in run.stdout


def _schemathesis() -> Path:
    """The program that was installed beside this interpreter."""
    beside = Path(sys.executable).with_name("st")
    found = beside if beside.exists() else shutil.which("st")
    assert found is not None, "schemathesis is not installed"
    return Path(found)
