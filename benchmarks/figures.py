"""Measures everything that docs/benchmarks.md and README.md show, and writes it there.

    python -m benchmarks.figures               all of it: most of an hour, on a machine that does nothing else
    python -m benchmarks.figures --only memory many
    python -m benchmarks.figures --samples 3   of hellobench, which takes most of the time
    python -m benchmarks.figures --only hellobench --results FILE   from an earlier run's JSON

A figure is the block of text after the comment that names it, as in `<!-- memory -->`.
"""

import argparse
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import machine
from benchmarks.hellobench import chart, report

ROOT = Path(__file__).parent.parent
PAGE, README, CHART = ROOT / "docs/benchmarks.md", ROOT / "README.md", ROOT / "docs/hellobench.svg"
SHOWN = ("gzip", "zstd", "zstd-optimized")
"""The modes of hellobench that are shown."""

COMMANDS = {
    "memory": ["benchmarks.memory"],
    "plain-memory": ["benchmarks.plain_memory"],
    "many": ["benchmarks.many"],
    "background": ["benchmarks.background"],
    "everything": ["benchmarks.everything"],
    "serve": ["benchmarks.serve", "--seconds", "2"],
    "hellobench": ["benchmarks.hellobench", "--links", "100m,1g", "--modes", ",".join(SHOWN), "--reads"],
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), metavar="FIGURE")
    parser.add_argument("--samples", type=int, default=5, metavar="N")
    parser.add_argument("--results", type=Path, metavar="FILE", help="of hellobench, instead of measuring")
    arguments = parser.parse_args()
    for name in arguments.only:
        if name != "hellobench":
            said = _measure(COMMANDS[name])
            replace_block(PAGE, name, f"```\n{_headed(name, said)}```\n")
            continue
        results = arguments.results or ROOT / "hellobench.json"
        if arguments.results is None:
            _measure([*COMMANDS[name], "--samples", str(arguments.samples), "--output", str(results)])
        _show_hellobench(report.load(results))
    return 0


def _measure(words: list[str]) -> str:
    print(f"{' '.join(words)} …", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _headed(name: str, said: str) -> str:
    """With the machine and the day, which only some of the benchmarks print themselves."""
    return said if machine.describe() in said else f"{machine.describe()}, {time.strftime('%Y-%m-%d')}\n{said}"


def _show_hellobench(results: report.Results) -> None:
    about = results.about
    head = f"{about['machine']}, {about['date']}"
    replace_block(PAGE, "hellobench", f"```\n{head}\n{report.text(results).rstrip()}\n```\n")
    replace_block(README, "hellobench", report.means(results, SHOWN))
    shown = [sample for sample in results.samples if sample.mode in SHOWN]
    CHART.write_text(chart.draw(replace(results, samples=shown)))


def replace_block(file: Path, name: str, block: str) -> None:
    """Put `block` where the comment that names it stands; the text after it, up to an empty line, goes."""
    text = file.read_text()
    pattern = re.compile(rf"(<!-- {name} -->\n)(```\n.*?```\n|(?:[^\n]+\n)*)", re.DOTALL)
    replaced, count = pattern.subn(lambda found: found[1] + block, text)
    if count != 1:
        raise SystemExit(f"{file}: wanted one comment that names {name}, found {count}")
    file.write_text(replaced)


if __name__ == "__main__":
    sys.exit(main())
