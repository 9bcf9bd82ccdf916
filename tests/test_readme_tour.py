"""The README's tour, line by line, by the shell, against a hub that was started as the README says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.readme_tables import README
from tests.serving import ADMIN_EMAIL, PASSWORD, serving

pytestmark = pytest.mark.slow
TOOLS = ("bash", "curl", "jq", "column")


def commands_and_answers() -> list[tuple[str, str]]:
    """Each bash block of the tour, and of what goes on from it, with the block that shows its answer, where one follows."""
    tour = README.read_text(encoding="utf-8").partition("## A tour with curl")[2].partition("\n## Data source types")[0]
    return re.findall(r"```bash\n(.*?)```\n(?:```(?:json|http|text)\n(.*?)```)?", tour, re.DOTALL)


def words(text: str) -> set[str]:
    """What stays the same from run to run: no ids, times, ports or durations."""
    return {word for word in re.findall(r"[\w-]+", text) if word.isascii() and not re.search(r"\d", word)}


def test_the_tour_answers_as_the_readme_says(tmp_path: Path) -> None:
    assert all(map(shutil.which, TOOLS)), f"the tour needs {', '.join(TOOLS)}"
    blocks = commands_and_answers()
    assert len(blocks) > 8
    with serving() as hub:
        script = "\n".join(f"printf '\\n--- {number}\\n'\n{block}" for number, (block, _) in enumerate(blocks))
        script = script.replace("http://127.0.0.1:8000", hub.url)
        (tmp_path / ".hub").symlink_to(hub.log.parent)
        script = re.sub(r"PASSWORD='[^']*'\n", f"PASSWORD='{PASSWORD}'\n", script, count=1)
        run = ["bash", "-euo", "pipefail", "-c", script.replace("admin@example.org", ADMIN_EMAIL)]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = re.split(r"^--- \d+$", done.stdout, flags=re.MULTILINE)[1:]
    for (block, shown), answer in zip(blocks, answers, strict=True):
        assert words(shown) <= words(answer), f"{block}\nis said to answer\n{shown}\nbut answered\n{answer}"
