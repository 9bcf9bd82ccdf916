"""Which tests answer which line of the list of found faults, and of what an attacker, a fault and a hurry must not do:
`python -m tests.found` prints it.

A test bears the ids of its lines as `@pytest.mark.found("D7")`, and so may a class or a whole file (`pytestmark`).
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
LINES = {
    **{f"A{number}": "attackers" for number in range(1, 13)},
    **{f"D{number}": "reading data" for number in range(1, 19)},
    **{f"U{number}": "using it" for number in range(1, 17)},
    **{f"L{number}": "under load" for number in range(1, 11)},
    **{f"RL{number}": "resources" for number in range(1, 7)},
    "FT5": "faults",
}
LATER = {"A11": "comes with scoped rights: filling a role asks for its members to be confirmed"}


@cache
def answers_by_line() -> dict[str, list[str]]:
    """Line to the tests that bear its id, as pytest names them (without parameters)."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        if "mark.found(" not in (source := path.read_text(encoding="utf-8")):
            continue
        tree = ast.parse(source)
        of_file = set(_ids_assigned(tree))
        for name, node in _tests(tree.body):
            parametrised = {one for decorator in node.decorator_list for one in _ids_in(decorator)}
            for line in sorted(of_file | parametrised):
                found[line].append(f"{path.relative_to(TESTS.parent)}::{name}")
    return dict(found)


def _tests(body: list[ast.stmt]) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _tests(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, node


def _ids_assigned(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(to, ast.Name) and to.id == "pytestmark" for to in node.targets
        ):
            yield from _ids_in(node.value)


def _ids_in(node: ast.AST) -> Iterator[str]:
    """Also those of single parameters: `pytest.param(..., marks=pytest.mark.found("D7"))`."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "found":
            yield from (one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str))


def main() -> None:
    answered = answers_by_line()
    for line, part in LINES.items():
        tests = answered.get(line, [])
        print(f"{line:4} {part}: {len(tests)} tests{'; ' + LATER[line] if line in LATER else ''}")
        for test in tests:
            print(f"       {test}")


if __name__ == "__main__":
    main()
