"""How far a training is, on standard error: a live line on a terminal, elsewhere a plain one for each epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from robustgate.engine.course import Lesson


class Lessons:
    """The pupil of a command: it hears of one training after another.

    Whoever prints something else meanwhile takes the live line away first: `clear`; at the end of a block it goes by
    itself. An epoch that is over in a fifth of a second need not have a line of its own.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, markup=False, highlight=False)
        self._last: Lesson | None = None
        self._live: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self, lesson: Lesson) -> None:
        """Show how far it is."""
        last, self._last = self._last, lesson
        begins = last is None or last.doing != lesson.doing or last.share > lesson.share
        if begins and lesson.epoch > 1:
            self.console.print(f"{lesson.doing}: goes on at epoch {lesson.epoch} of {lesson.epochs}")
        if self.console.is_terminal:
            self._show(lesson, begins=begins)
        elif last is not None and not begins and last.epoch < lesson.epoch:
            self.console.print(_line(last))
        if lesson.share >= 1 and lesson.epoch:
            self.clear()
            self.console.print(_line(lesson))

    def clear(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live[0].stop()
            self._live = None

    def _show(self, lesson: Lesson, *, begins: bool) -> None:
        if self._live is None:
            progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live = progress, progress.add_task(lesson.doing, total=1.0)
            progress.start()
        progress, task = self._live
        if begins:  # what was done before the first word does not tell how fast this goes
            progress.reset(task, completed=0)
        progress.update(task, completed=lesson.share, description=_line(lesson))


def _line(lesson: Lesson) -> str:
    told = [lesson.doing]
    if lesson.epoch:
        told.append(f"epoch {lesson.epoch}/{lesson.epochs}")
    if lesson.loss is not None:
        told.append(f"loss {lesson.loss:.4g}")
    return "  ".join(told)
