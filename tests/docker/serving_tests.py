"""The tests of the service, run by the image's own Python against the packages that are in the image."""

from __future__ import annotations

import sys

from buildah import Buildah
from workbench import ROOT, PipConfiguration

_INSTALL = """
python3 -m venv /opt/installer
cd /src && python3 docker/requirements.py serving-tests > /tmp/requirements.txt
/opt/installer/bin/pip --python /opt/emboundary/bin/python3 install -q --disable-pip-version-check --no-cache-dir \
    --root-user-action ignore --only-binary :all: \
    -c docker/constraints.txt -c tests/constraints.txt -r /tmp/requirements.txt
"""
# What meets Python, the libraries and the system most directly; `make test-pythons` runs the others, too.
_FILES = (
    *("app", "client_http", "codecs", "doctor", "engine", "jobs_routes", "metrics", "no_torch", "predict_cli"),
    *("security_routes", "serve", "v2", "volumes_zarr"),
)
# What the image sets is for the service, not for its tests.
_TEST = f"""
unset $(env | sed -n 's/^\\(EMBOUNDARY_[A-Z_]*\\)=.*/\\1/p')
cd /src && HOME=/root HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis XDG_CACHE_HOME=/tmp/cache \
    /opt/emboundary/bin/python3 -m pytest -q --serving=short -p no:cacheprovider \
    {" ".join(f"tests/service/test_{name}.py" for name in _FILES)}
"""


def run_serving_tests(buildah: Buildah, image: str, pip: PipConfiguration) -> None:
    """Add what the tests need to a copy of the image, and run them there.

    Raises:
        SystemExit: one of them failed.
    """
    container = buildah("from", image)
    words = ["run", "--user", "0:0", "--volume", f"{ROOT}:/src:ro", *pip.for_run, container, "--", "sh", "-ec"]
    buildah(*words, _INSTALL)
    if buildah.show(*words, _TEST):
        sys.exit("image-test: FAILED: the tests of the service, with the image's Python")
    buildah("rm", container)
