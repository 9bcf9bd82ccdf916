"""How the demo speaks: tables, ticks and progress bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Advance = Callable[[int, int | None], None]
"""Takes what is done and what there is in all (None: not known)."""


class DemoFailed(Exception):
    """Something was not as expected; a sentence for the person at the terminal."""


class Teller:
    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._console = Console(highlight=False, width=None if self.is_terminal else 200)
        self.timings: list[tuple[str, float]] = []

    def heading(self, text: str) -> None:
        self._console.print(f"\n[bold]{escape(text)}[/bold]")

    def line(self, text: str = "") -> None:
        self._console.print(f"  {escape(text)}")

    def done(self, text: str) -> None:
        self._marked("[green]✓[/green]", text)

    def refused(self, text: str) -> None:
        self._marked("[yellow]✗[/yellow]", text)

    def _marked(self, mark: str, text: str) -> None:
        """A sentence that is too long for its line goes on below its beginning."""
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_row(f"  {mark}", escape(text))
        self._console.print(row)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds what the block took to the summary."""
        started = time.monotonic()
        yield
        self.timings.append((what, time.monotonic() - started))

    @contextmanager
    def progress(self, what: str) -> Iterator[Advance]:
        """A bar while the block lasts; nothing where no terminal is."""
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self.is_terminal) as bars:
            bar = bars.add_task(f"{what:12}", total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
        for row in rows:
            table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
        self._console.print(table)
