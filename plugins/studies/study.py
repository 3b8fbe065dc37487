"""The study: what the papers claim of compressed networks, put to the test, and told in docs/study.md.

    python plugins/studies/study.py [--minutes 180] [--seeds 3] [--workers 2] [--device cpu] [--only 5 6] [--report]

ROBUSTGATE_DATA names the folder of real data. What is measured is kept in results.json beside this file, and what is
built in `--work`: a second run goes on where the first one stopped. Seed by seed: where the minutes do not suffice for
all, the report says of how many seeds it speaks. `--report` only makes the report again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Its own modules, and the factories that its configurations name; the processes that it starts get it too.
sys.path.insert(0, str(HERE))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))

from claims import ADAPTED, ADAPTED_FROM, CLAIMS, SHARPENED  # noqa: E402
from evidence import Contrast  # noqa: E402
from materials import place, prepare  # noqa: E402
from measuring import Results, Task, described, run  # noqa: E402
from report import write_report  # noqa: E402

RESULTS = HERE / "results.json"
SEEDS = 3
WORK = HERE.parents[1] / "build" / "study"


def seeds_of(task: Task) -> int:
    """Return how many seeds a task is worth: what takes longest has two, and one where few images judge."""
    if task.setting == "office":
        return 1
    if task.part == "attacked" or task.model == "resnet56" or (task.setting, task.model) == ("cifar100", "resnet20"):
        return 2
    return SEEDS


def planned(seeds: Sequence[int], only: Sequence[int]) -> list[Task]:
    """Return the tasks, those of the first seed first, and of each seed what is attacked last."""
    claims = [claim for claim in CLAIMS if not only or claim.number in only]
    contrasts: list[Contrast] = [one for claim in claims for one in claim.contrasts]
    contrasts += [] if only else [*ADAPTED, *ADAPTED_FROM]
    tasks: list[Task] = []
    for nth, seed in enumerate(seeds):
        wanted = [*contrasts, *(SHARPENED if nth == 0 and not only else ())]
        needed = dict.fromkeys(task for one in wanted for task in one.tasks(seed))
        kept = [task for task in needed if nth < seeds_of(task)]
        tasks += sorted(kept, key=lambda task: task.part == "attacked")
    return tasks


def main() -> int:
    """Measure what is missing, and write the report. Returns 1 where something is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=180)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of claims")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--report", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    results, seeds, left = Results.read(RESULTS), range(asked.seeds), 0
    if not asked.report:
        where = place(asked.work.resolve(), asked.device)
        prepare(where)
        results.machine = described(where, asked.workers)
        tasks = planned(seeds, asked.only)
        left = run(
            where,
            tasks,
            results,
            workers=asked.workers,
            minutes=asked.minutes,
            say=lambda line: print(line, flush=True),
        )
    write_report(results, seeds, HERE.parent / "docs")
    print(
        f"{HERE.parent / 'docs' / 'study.md'}: written" + (f"; {left} networks are left: run it again" if left else "")
    )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
