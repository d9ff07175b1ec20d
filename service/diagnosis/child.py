"""The process that asks for ``apart``: ``python -m emboundary.service.diagnosis.child NAME``."""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

from emboundary.service.errors import first_line


def main() -> None:
    """Answer one question: JSON on standard input, JSON on standard output, whatever libraries print meanwhile."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    question = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        from emboundary.service.diagnosis.probes import PROBES

        answer = {"answer": PROBES[sys.argv[1]](question)}
    except Exception as error:  # the process that asked says it
        answer = {"failure": first_line(error)}
    print(json.dumps(answer), file=answers, flush=True)
    # Libraries of drivers can hang as they are unloaded: the answer is given, nothing is left to tidy up.
    os._exit(0)


if __name__ == "__main__":
    main()
