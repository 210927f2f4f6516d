"""Print the table and write the HTML report of results again, from their files alone: no model, no task.

python -m pipelines.report results/toy_de_en/NAME.json
python -m pipelines.report results/toy_de_en            # all results of a task in one report
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.cli import one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.report", description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, help="results (JSON), or folders that hold them")
    parser.add_argument("--out", type=Path, help="where the report goes; beside the results if left out")
    options = parser.parse_args(arguments)
    from pipelines.evaluation.results import shown_path

    with one_line("report"):
        print(shown_path(rewrite(options.paths, options.out)))


def rewrite(paths: Sequence[Path], out: Path | None) -> Path:
    """Print the tables of the results at ``paths`` and write their report; returns where it is."""
    from pipelines.evaluation import report, results, table

    found = results.find(paths)
    # First what may fail: the report needs the examples as well.
    path = report.write_report(found, report.report_path(found) if out is None else out)
    table.print_tables(found)
    return path


if __name__ == "__main__":
    main()
