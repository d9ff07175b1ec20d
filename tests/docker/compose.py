"""compose.yaml as Docker Compose itself reads it, which needs no daemon for that: which services run, and where."""

from __future__ import annotations

import sys

from base import NAME as BASE
from buildah import Buildah
from page import compose_calls
from workbench import ROOT

# (folder, arguments) and the services that `up` starts then.
_KEYS = "-f docker/compose.yaml -f docker/compose.keys.yaml"
_CALLS = {
    ("/src", ""): {"gpu"},
    ("/src", "--profile gpu"): {"gpu"},
    ("/src", "--profile cpu"): {"cpu"},
    ("/src", "--profile gpu --profile monitoring"): {"gpu", "prometheus", "grafana"},
    ("/src", "--profile cpu --profile monitoring"): {"cpu", "prometheus", "grafana"},
    ("/src", _KEYS): {"gpu"},
    ("/src", f"{_KEYS} --profile cpu --profile monitoring"): {"cpu", "prometheus", "grafana"},
    ("/src/docker", ""): {"gpu"},
    ("/src/docker", "--profile cpu"): {"cpu"},
    ("/", "-f /src/docker/compose.yaml"): {"gpu"},
}


def check_compose(buildah: Buildah) -> None:
    """Ask Docker Compose 2, in a container of its own, what it would start.

    Raises:
        SystemExit: something else than it should, or a file that it refuses.
    """
    container = buildah("from", BASE)
    install = "apt-get update -qq && apt-get install -qq -y --no-install-recommends docker-compose"
    buildah("run", container, "--", "sh", "-c", f"export DEBIAN_FRONTEND=noninteractive; {install}")
    read = ("run", "-v", f"{ROOT}:/src:ro", container, "--", "sh", "-ec")
    for (folder, arguments), expected in _CALLS.items():
        call = (
            f"cd {folder} && docker-compose {arguments} config --quiet && docker-compose {arguments} config --services"
        )
        services = set(buildah(*read, call).split())
        if services != expected:
            sys.exit(
                f"image-test: FAILED: `docker compose {arguments} up` in {folder} starts {services}, not {expected}"
            )
    for line in compose_calls():
        call = f"cd /src && {line.variables}docker-compose {line.flags} config --services"
        services = set(buildah(*read, call).split())
        named = {"gpu", "cpu"}.intersection(line.words)
        if not services or not named <= services:
            sys.exit(f"image-test: FAILED: docs/docker.md calls {line}, which knows the services {services}")
    buildah("rm", container)
