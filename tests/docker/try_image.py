"""Builds the CPU image without a Docker daemon, runs it as compose.yaml would, and asks it what a user would.

``make image-test`` calls it, as root: buildah builds on a Debian that debootstrap makes.  What it installs, it says;
what it makes is gone afterwards, but for that Debian.  Any failure ends it with code 1.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from asking import HeldRequest, ask, free_port, section
from base import NAME as BASE
from base import make_base
from buildah import Buildah, Image
from compose import check_compose
from container import Container
from page import megabytes, questions
from serving_tests import run_serving_tests
from workbench import ROOT, PipConfiguration, need_tools, phase, run, say, scratch

NAME = "localhost/emboundary:cpu"
_ANY_USER = "54321:54321"
_STOP_S = 30
_PINS = """
import re, sys
from importlib.metadata import distributions
normal = lambda name: re.sub("[-_.]+", "-", name).lower()
pinned = {normal(line.split("==")[0]): line.split("==")[1].strip() for line in sys.stdin if "==" in line}
for found in distributions():
    name = normal(found.metadata["Name"])
    if name != "emboundary" and pinned.get(name) != found.version:
        sys.exit(f"{name} {found.version} is installed, and docker/constraints.txt says {pinned.get(name)}")
"""


def main() -> None:
    """Everything, in the order in which it fails soonest."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("image-test: told to stop"))
    need_tools("buildah", "curl", "debootstrap")
    with scratch() as folder:
        buildah = Buildah(folder)
        try:
            pip = PipConfiguration.of_this_machine(folder)
            make_base(buildah, folder)
            with ThreadPoolExecutor() as pool:
                started = [pool.submit(_validate, buildah), pool.submit(_build, buildah, pip)]
                for future in started:
                    future.result()
            image = buildah.image(NAME)
            container = buildah("from", "--name", "image-test", NAME)
            root = Path(buildah("mount", container))
            with phase("running it"):
                _check_what_it_says(image)
                _check_what_is_in_it(root)
                _check_service(image, root, folder)
                _check_any_user(image, root, folder)
                _check_doctor(image, root, folder)
            with phase("running the tests of the service with its Python"):
                run_serving_tests(buildah, NAME, pip)
            _check_size(buildah)
        finally:
            buildah.remove_everything()


@phase("asking Docker Compose what compose.yaml starts")
def _validate(buildah: Buildah) -> None:
    check_compose(buildah)


@phase("building the CPU image")
def _build(buildah: Buildah, pip: PipConfiguration) -> None:
    words = ["build", "--format", "docker", "--target", "cpu", "--build-arg", f"PYTHON_IMAGE={BASE}"]
    buildah(*words, *pip.for_build, "-f", ROOT / "docker" / "Dockerfile", "-t", NAME, ROOT)


def _must(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"image-test: FAILED: {what}")


def _check_what_it_says(image: Image) -> None:
    _must(
        re.fullmatch(r"[1-9]\d*:\d+", image.user) is not None, f"user is {image.user!r}; it must be a number, not root"
    )
    secrets = [name for name in image.environment if "KEY" in name or "PIP" in name]
    _must(not secrets, f"the environment holds {secrets}")
    for name in ("title", "version", "licenses"):
        _must(bool(image.labels.get(f"org.opencontainers.image.{name}")), f"the image has no label {name}")


def _check_what_is_in_it(root: Path) -> None:
    packages = next((root / "opt/emboundary/lib").glob("python3*/site-packages"))
    for name in ("torch", "pip", "setuptools"):
        _must(not (packages / name).exists(), f"{name} is in the image")
    compiled = {path.parent.parent / f"{path.name.split('.')[0]}.py" for path in packages.rglob("emboundary/**/*.pyc")}
    _must(compiled == set(packages.rglob("emboundary/**/*.py")), "not every module of emboundary is compiled")
    for place in ("usr/bin/gcc", "root/.cache", "etc/pip.conf", "state/keys.txt"):
        _must(not (root / place).exists(), f"/{place} is in the image")
    pins = "".join((ROOT / name).read_text() for name in ("constraints.txt", "docker/constraints.txt"))
    python = ["chroot", root, "/opt/emboundary/bin/python3", "-c"]
    run([*python, _PINS], input=pins)
    run([*python, "import cv2, gcsfs, s3fs, tensorstore"])  # what the extras bring finds its libraries


def _start(image: Image, root: Path, folder: Path, user: str, command: tuple[str, ...], port: int = 0) -> Container:
    for name in ("state", "output"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o1777)
    (folder / "input").mkdir(exist_ok=True)
    (folder / "input" / "section.png").write_bytes(section(256))
    mounts = {"/state": folder / "state", "/data/input:ro": folder / "input", "/data/output": folder / "output"}
    environment = {**image.environment, "EMBOUNDARY_PORT": str(port), "OMP_NUM_THREADS": "2"}
    return Container(root, command, environment, user, mounts, folder / "log")


def _check_service(image: Image, root: Path, folder: Path) -> None:
    """The first start, with everything that a user does first, and the second one."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with _start(image, root, folder, image.user, image.command, port) as service:
        service.wait_for("emboundary serves d4 at .*CPU")
        key = service.wait_for(r"\s(emb_[\w-]{40,})\s")[1]
        _must(ask(f"{url}/health/ready").status == 200, "it is not ready")
        _must(_healthy(image, root, port), "the health check fails")
        _must(not _healthy(image, root, free_port()), "the health check succeeds where nothing listens")
        image_body = section(512)
        _must(ask(f"{url}/v1/predict", body=image_body).status == 401, "it answers without a key")
        _must(ask(f"{url}/v1/predict", "emb_wrong", image_body).status == 401, "it answers to a wrong key")
        answer = ask(f"{url}/v1/predict", key, image_body)
        _must(answer.status == 200 and answer.body.startswith(b"\x89PNG"), f"no map, but {answer}")
        _check_page(port, key, folder)
        _check_job(url, key, folder / "output")
        _check_new_key(service, image, root, url, folder / "state" / "keys.txt")
        _must(ask(f"{url}/metrics", key).status == 200, "no metrics with the key of the first start")
        _check_stop(service, port, key)
    _must("tini" not in service.text.lower(), f"tini complains:\n{service.text}")
    _must(key not in (folder / "state" / "keys.txt").read_text(), "the key itself is kept")
    told = [path for path in (folder / "state").rglob("*") if "onnxruntime" in path.name]
    _must(not told, f"ONNX Runtime keeps what it would tell its makers: {told}")
    with _start(image, root, folder, image.user, image.command, port) as service:
        service.wait_for("emboundary serves d4 at ")
        _must("emb_" not in service.text, "the second start shows a key")
        _must(ask(f"{url}/v1/models", key).status == 200, "the second start has forgotten the key")
        service.send(signal.SIGTERM)
        _must(service.wait(_STOP_S) == 0, f"an idle service does not end well:\n{service.text}")


def _check_page(port: int, key: str, folder: Path) -> None:
    """What docs/docker.md asks the service."""
    for script in questions():
        script = script.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("emb_example", key)
        run(["bash", "-ec", script], cwd=folder / "input", env={**os.environ, "EMBOUNDARY_API_KEY": key})
    _must((folder / "input" / "boundary.png").is_file(), "docs/docker.md gets no map")


def _check_new_key(service: Container, image: Image, root: Path, url: str, file: Path) -> None:
    """A key that is added while the service runs."""
    words = [*_inside(image, root), "emboundary", "keys", "new", "lab", "--scopes", "predict"]
    made = subprocess.run(words, capture_output=True, text=True, check=True)
    with file.open("a") as stream:
        stream.write(made.stdout)
    service.send(signal.SIGHUP)
    service.wait_for("the keys were read again")
    _must(ask(f"{url}/v1/models", made.stderr.split()[-1]).status == 200, "a key that was added does not open")


def _check_job(url: str, key: str, output: Path) -> None:
    document = b'{"input": "input/section.png", "output": "output/mine.zarr"}'
    asked = ask(f"{url}/v1/jobs", key, document, "application/json")
    _must(asked.status == 202, f"the job is not taken: {asked}")
    end = time.monotonic() + _STOP_S
    while (job := ask(f"{url}/v1/jobs/{asked.document['id']}", key).document)["state"] in ("queued", "running"):
        _must(time.monotonic() < end, f"the job never ends: {job}")
        time.sleep(0.1)
    _must(job["state"] == "succeeded" and (output / "mine.zarr").is_dir(), f"the job failed: {job}")


def _check_stop(service: Container, port: int, key: str) -> None:
    """SIGTERM with a request in flight: it is answered, and the exit code is 0."""
    request = HeldRequest(port, "/v1/predict", key, section(256))
    service.send(signal.SIGTERM)
    service.wait_for("stopping")
    answer = request.finish()
    _must(answer.status == 200, f"the request in flight was answered {answer}")
    code = service.wait(_STOP_S)
    _must(code == 0, f"SIGTERM ends it with code {code}:\n{service.text}")


def _healthy(image: Image, root: Path, port: int) -> bool:
    words = [*_inside(image, root, EMBOUNDARY_PORT=str(port)), *image.health]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _inside(image: Image, root: Path, **variables: str) -> list[str]:
    given = [f"{name}={value}" for name, value in {**image.environment, **variables}.items()]
    return ["env", "-i", *given, "chroot", str(root)]


def _check_any_user(image: Image, root: Path, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    with _start(image, root, other, _ANY_USER, image.command) as service:
        service.wait_for("emboundary serves d4 at ")
        service.send(signal.SIGTERM)
        _must(service.wait(_STOP_S) == 0, f"as user {_ANY_USER} it does not end well:\n{service.text}")
    # Another user than the one that the keys belong to is told so.
    with _start(image, root, other, image.user, image.command) as service:
        service.wait_for("keys.txt cannot be read by user")
        _must(service.wait(_STOP_S) == 1, "keys that cannot be read are no failure")


def _check_doctor(image: Image, root: Path, folder: Path) -> None:
    with _start(image, root, folder, image.user, (*image.entry_point, "doctor")) as doctor:
        code = doctor.wait(120)
    say("emboundary doctor, inside:\n" + doctor.text.rstrip())
    _must(code == 0, "emboundary doctor finds a fault")


def _check_size(buildah: Buildah) -> None:
    base = buildah.bytes(BASE) / 1e6
    size = buildah.bytes(NAME) / 1e6 - base
    say(f"the CPU image has {base + size:.0f} MB, {size:.0f} of them beside its base")
    told = megabytes("cpu")
    _must(0.9 * size <= told <= 1.1 * size, f"beside its base it has {size:.0f} MB, and docs/docker.md says {told}")


if __name__ == "__main__":
    main()
