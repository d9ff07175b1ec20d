"""Write docs/experiments.md from the pages that ``emboundary-train experiment`` left in docs/experiments.

``--check`` only says whether it is up to date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from emboundary.training.experimenting.file import find_experiment, read_experiment

DOCS = Path(__file__).parents[2] / "docs"

HEAD = """# The papers' own experiments

Written by `python tests/benchmarks/experiments_page.py` from what `emboundary-train experiment` left in
`docs/experiments`; every figure comes from there.  Again, on your own machine:

```sh
emboundary-train experiment rotated-mnist --budget cpu --jobs 2 --data DATA
```

`--budget smoke` takes seconds, `cpu` tens of minutes on 2 cores, `full` a GPU; `--jobs 2` trains two variants side by
side, `--only LABEL` takes one.  Runs are kept in `--runs` and taken up again; the page, its JSON and its pictures go to
`--out`.  DATA holds `mnist/mnist.npz`, `cifar10_jpeg/cifar10_jpeg.zip` and `vnc/`.

What each set of images is and is not: MNIST has 3,000 test images here; rotated MNIST is made from all of its digits
with angles of our own; CIFAR-10 is a lossy copy.  So figures compare with each other, and with published ones only
roughly; published figures stand in the tables beside them.  Costs are multiplications and additions of the network as
it is served, filters expanded; minutes are wall time on one core of a machine that did other work beside, so that they
say the order of magnitude alone.

The experiments that chose the bundled models' stem and recipe are in [experiments/README.md](experiments/README.md).
What `emboundary-train examine` says of the bundled models: [d4](experiments/examination-d4/examination.md) and
[plain](experiments/examination-plain/examination.md).
"""

# In the order of the papers.
ORDER = (
    "rotated-mnist",
    "symmetric-kernels",
    "cifar10",
    "cifar10-plus",
    "pooling",
    "pooling-rotated",
    "scattering",
    "scattering-rotated",
    "em-ablation",
)


def page() -> str:
    """The whole page."""
    parts, missing = [HEAD], []
    for name in ORDER:
        path = DOCS / "experiments" / f"{name}.md"
        if path.exists():
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            parts.append(_joined(name, path.read_text(encoding="utf-8"), record))
        else:
            missing.append(f"- `{name}`: {read_experiment(find_experiment(name)).question}")
    if missing:
        parts.append(
            "## Not run yet\n\nThe suite runs them with the budget `smoke` alone.\n\n" + "\n".join(missing) + "\n"
        )
    return "\n".join(parts)


def _joined(name: str, text: str, record: dict[str, Any]) -> str:
    """One experiment's page as a section of the whole, with what it was run on."""
    text = re.sub(
        r"^# (.*)$",
        rf"## \1\n\n`emboundary-train experiment {name} --budget {record['budget']}`",
        text,
        count=1,
        flags=re.MULTILINE,
    )
    text = re.sub(r"\[(.*?)\]\((.*?)\)", r"[\1](experiments/\2)", text)
    where = record["environment"]
    versions = where["versions"]
    return f"{text.rstrip()}\n\nOn {where['processor']}, {where['device']}; torch {versions['torch']}.\n"


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    target, written = DOCS / "experiments.md", page()
    if not parser.parse_args().check:
        target.write_text(written, encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != written:
        sys.exit(f"{target} differs from what docs/experiments says")


if __name__ == "__main__":
    main()
