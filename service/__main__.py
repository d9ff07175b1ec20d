"""``python -m emboundary.service`` is the command ``emboundary`` of this very interpreter."""

from emboundary.service.cli import main

main()
