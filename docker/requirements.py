"""What pyproject.toml asks for with some extras, one requirement a line: ``requirements.py EXTRA,EXTRA``.

The image installs it before the project, so that a change of the project leaves the large layer as it is.
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Dependencies of the project and of these extras.

    Raises:
        SystemExit: an extra that the project does not have.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    known = project["optional-dependencies"]
    for extra in extras:
        if extra not in known:
            sys.exit(f"EXTRAS names {extra!r}; it must be some of {', '.join(known)}, with commas between them")
    return [*project["dependencies"], *(line for extra in extras for line in known[extra])]


if __name__ == "__main__":
    wanted = [extra.strip() for extra in sys.argv[1].split(",") if extra.strip()]
    sys.stdout.writelines(f"{line}\n" for line in requirements(Path("pyproject.toml"), wanted))
