from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from emboundary.service.errors import InputError, UsageError
from emboundary.service.security.jail import Jail, UrlPrefix

PREFIXES = ("https://store.example/em/", "s3://bucket/em", "http://127.0.0.1:8080/open")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a volume, beside a folder of secrets, and links of every kind."""
    root, secret = tmp_path / "data", tmp_path / "secret"
    for folder in (root / "sub", secret, tmp_path / "data-of-others"):
        folder.mkdir(parents=True)
    for file in (root / "raw.tif", root / "sub/raw.tif", root / "odd::name.tif", secret / "raw.tif"):
        file.write_bytes(b"II*\0")
    (tmp_path / "data-of-others/raw.tif").write_bytes(b"II*\0")
    (root / "out").symlink_to(secret)
    (root / "out.tif").symlink_to(secret / "raw.tif")
    (root / "nowhere").symlink_to(tmp_path / "no such thing")
    (root / "loop").symlink_to(root / "loop")
    (root / "in.tif").symlink_to(root / "raw.tif")
    return root


@pytest.fixture
def jail(root: Path) -> Jail:
    return Jail([root], PREFIXES)


def test_names_inside_come_back_resolved(jail: Jail, root: Path) -> None:
    for text, expected in {
        "raw.tif": root / "raw.tif",
        "./sub/raw.tif": root / "sub/raw.tif",
        "sub": root / "sub",
        "in.tif": root / "raw.tif",
        "odd::name.tif": root / "odd::name.tif",
        "not there yet.zarr": root / "not there yet.zarr",
        "%2e%2e": root / "%2e%2e",  # nothing decodes it: a name like any other
        f"{root}/raw.tif": root / "raw.tif",
        f"{root}//sub///raw.tif": root / "sub/raw.tif",
    }.items():
        assert jail.input(text) == str(expected), text


def test_a_root_that_is_a_link_may_be_named_both_ways(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    jail = Jail([tmp_path / "link"])
    assert jail.input(f"{tmp_path}/link/raw.tif") == jail.input(f"{root}/raw.tif") == str(root / "raw.tif")


ESCAPES = [
    "../secret/raw.tif",
    "..",
    "../",
    "sub/../../secret/raw.tif",
    "sub/../raw.tif",
    "./../secret/raw.tif",
    "{root}/../secret/raw.tif",
    "{root}/sub/../../secret/raw.tif",
    "{parent}/secret/raw.tif",
    "{parent}/no such folder/raw.tif",
    "{parent}/data-of-others/raw.tif",
    "{parent}",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "///etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "~/raw.tif",
    "~root/raw.tif",
    "out/raw.tif",
    "out",
    "out.tif",
    "nowhere",
    "nowhere/raw.tif",
    "loop",
    "loop/raw.tif",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://{root}/raw.tif",
    "local:///etc/passwd",
    "memory://raw.tif",
    "zip://x::/etc/passwd",
    "raw.tif\0",
    "raw.tif\0.png",
    "raw.tif\n",
    "\traw.tif",
    " /etc/passwd",
    "raw.tif\u202e",
    "\ud800",
    "",
    "a" * 5000,
    "../secret/raw.h5::/raw",
    "/etc/passwd::/raw",
    "out/raw.h5::/raw",
    "::/raw",
    "no.h5::/raw",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_what_leads_out_is_refused(jail: Jail, root: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"^input is ") as caught:
        jail.input(text.replace("{root}", str(root)).replace("{parent}", str(root.parent)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def rule(refused: Callable[[], Any]) -> str:
    with pytest.raises((InputError, UsageError)) as caught:
        refused()
    return str(caught.value).partition("; ")[2]


def test_a_refusal_does_not_tell_whether_there_is_something(jail: Jail, root: Path) -> None:
    there = rule(lambda: jail.input(f"{root.parent}/secret/raw.tif"))
    assert there == rule(lambda: jail.input(f"{root.parent}/secret/none.tif"))
    assert there == rule(lambda: jail.input("out.tif"))
    assert there == rule(lambda: jail.input("nowhere"))
    assert there == rule(lambda: jail.input("out/none.tif"))
    assert str(root) not in there


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://store.example/em/vol.zarr", "https://store.example/em/vol.zarr"),
        ("HTTPS://Store.Example:443/em/vol.zarr/", "https://store.example/em/vol.zarr"),
        ("https://store.example/em", "https://store.example/em"),
        ("https://store.example/em/a%20b", "https://store.example/em/a%20b"),
        ("s3://bucket/em/vol.zarr", "s3://bucket/em/vol.zarr"),
        ("http://127.0.0.1:8080/open/a.tif", "http://127.0.0.1:8080/open/a.tif"),
    ],
)
def test_urls_below_a_prefix_come_back_in_one_form(jail: Jail, text: str, expected: str) -> None:
    assert jail.input(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "https://store.example/other",
        "https://store.example/emx/vol.zarr",
        "https://store.example/em.zarr",
        "https://store.example/EM/vol.zarr",
        "https://store.example.evil/em/vol.zarr",
        "https://evil.example/https://store.example/em/",
        "https://store.example@evil.example/em/vol.zarr",
        "https://user:secret@store.example/em/vol.zarr",
        "https://store.example:8443/em/vol.zarr",
        "http://store.example/em/vol.zarr",
        "https://store.example./em/vol.zarr",
        "https://st\u043ere.example/em/vol.zarr",
        "https://store.example/em/../secret",
        "https://store.example/em/./vol",
        "https://store.example/em/%2e%2e/secret",
        "https://store.example/em/%2E%2e%2fsecret",
        "https://store.example/em/.%2e/secret",
        "https://store.example/em/%252e%252e/secret",
        "https://store.example/em/..%2fsecret",
        "https://store.example/em/..%5csecret",
        "https://store.example/em/..\\secret",
        "https://store.example\\@evil.example/em/",
        "https://store.example/em/a%00b",
        "https://store.example/em/a%0d%0aX: y",
        "https://store.example/em/a%",
        "https://store.example/em/vol?x=https://store.example/em/",
        "https://store.example/em/vol#/em",
        "https://evil.example#https://store.example/em/",
        "https://store.example/em/a b",
        "https://[::1]:99999/em/",
        "https://[/em/",
        "https:///em/vol.zarr",
        "s3://bucket2/em/vol.zarr",
        "s3://bucket/emx",
        "s3a://bucket/em/vol.zarr",
        "gs://bucket/em/vol.zarr",
        "ftp://store.example/em/vol.zarr",
        "github://store.example/em/vol.zarr",
        "simplecache::https://store.example/em/vol.zarr",
        "https://store.example/em/a.zip::https://store.example/em/b.h5::/raw",
        "zip://raw.h5::https://store.example/em/a.zip",
        "file:///etc/passwd::https://store.example/em/a.zip",
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/latest/meta-data/",
        "http://0xa9fea9fe/latest/meta-data/",
        "http://169.254.43518/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/latest/meta-data/",
        "http://[fe80::1]/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://localhost:8080/open/a.tif",
        "http://127.1:8080/open/a.tif",
        "http://127.0.0.1:80/open/a.tif",
        "http://127.0.0.1:8080@evil.example/open/a.tif",
    ],
)
def test_any_other_url_is_refused(jail: Jail, text: str) -> None:
    with pytest.raises(InputError, match=r"^input is ") as caught:
        jail.input(text)
    assert str(caught.value).isprintable()


def test_a_host_with_the_address_of_a_metadata_service_is_refused(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(InputError, match="hands out a machine's credentials"):
        jail.input("https://store.example/em/vol.zarr")


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("file:///data", "a URL must begin with one of https://"),
        ("/data", "a URL must begin with one of https://"),
        ("store.example/em", "a URL must begin with one of https://"),
        ("https://", "a URL must name a host"),
        ("https://user@host/", "without spaces, backslashes, query, fragment or user name"),
        ("http://169.254.169.254/", "an address that hands out a machine's credentials"),
        ("http://[fd00:ec2::254]/", "an address that hands out a machine's credentials"),
        ("http://metadata.google.internal/", "a service that hands out a machine's credentials"),
        ("https://host:http/", "no valid URL"),
    ],
)
def test_a_prefix_that_nobody_may_open_stops_the_service(prefix: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"^url_prefixes has ") as caught:
        Jail([], [prefix])
    assert message in str(caught.value)


def test_a_service_without_roots_opens_no_files(root: Path) -> None:
    jail = Jail([], PREFIXES)
    for refused in (lambda: jail.input(str(root / "raw.tif")), lambda: jail.output("map.zarr")):
        assert "this service opens no files" in rule(refused)


def test_with_several_roots_names_are_whole_paths(root: Path, tmp_path: Path) -> None:
    jail = Jail([root, tmp_path / "data-of-others"])
    assert jail.input(f"{tmp_path}/data-of-others/raw.tif") == f"{tmp_path}/data-of-others/raw.tif"
    assert "several data roots" in rule(lambda: jail.input("raw.tif"))


def test_redirections_are_held_below_the_prefixes(jail: Jail) -> None:
    assert jail.reads("https://store.example/em/moved.zarr/.zarray")
    assert not jail.reads("https://store.example/login")
    assert not jail.reads("http://169.254.169.254/latest")
    assert not jail.reads("file:///etc/passwd")
    assert str(UrlPrefix.parse("http://[::1]:80/a/")) == "http://[::1]/a"


def test_outputs_inside_come_back_resolved(jail: Jail, root: Path) -> None:
    assert jail.output("map.zarr") == root / "map.zarr"
    assert jail.output(f"{root}/sub/map.tif") == root / "sub/map.tif"
    (root / "here").symlink_to(root / "sub")
    assert jail.output("here/map.tif") == root / "sub/map.tif"


@pytest.mark.parametrize("text", [text for text in ESCAPES if "no such" not in text])
def test_outputs_that_lead_out_are_refused(jail: Jail, root: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"^output is "):
        jail.output(text.replace("{root}", str(root)).replace("{parent}", str(root.parent)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("in.tif", "it is a link"),
        (".map.zarr.partial/ledger.zarr", "names that begin with a dot"),
        ("sub/.hidden.zarr", "names that begin with a dot"),
        ("https://store.example/em/map.zarr", "maps are written to files and folders"),
        ("s3://bucket/em/map.zarr", "maps are written to files and folders"),
        ("map.h5::/map", "maps are written to files and folders"),
        (".", "it is a data root itself"),
    ],
)
def test_outputs_that_are_not_ours_to_write_are_refused(jail: Jail, text: str, message: str) -> None:
    assert message in rule(lambda: jail.output(text))


def test_a_pipe_is_not_waited_for(jail: Jail, root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert "neither a file nor a folder" in rule(lambda: jail.input("pipe"))


@pytest.fixture
def hdf5(root: Path) -> Path:
    secret = root.parent / "secret/raw.h5"
    with h5py.File(secret, "w") as file:
        file["raw"] = np.zeros((2, 3, 4), np.uint8)
    path = root / "raw.h5"
    with h5py.File(path, "w") as file:
        file["group/raw"] = np.zeros((2, 3, 4), np.uint8)
        file["outside"] = h5py.ExternalLink(secret, "/raw")
        file["all"] = h5py.ExternalLink(secret, "/")
        file["soft"] = h5py.SoftLink("/outside")
        file["group/near"] = h5py.SoftLink("raw")
        file["far"] = h5py.SoftLink("/group/near")
        file["loop"] = h5py.SoftLink("/loop")
        layout = h5py.VirtualLayout((2, 3, 4), np.uint8)
        layout[:] = h5py.VirtualSource(secret, "raw", (2, 3, 4))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", (2, 3, 4), np.uint8, external=[(str(root.parent / "secret/raw.tif"), 0, 24)])
    return path


@pytest.mark.parametrize("inside", ["/group/raw", "group/raw", "/group/near", "/far", "/none", "group"])
def test_hdf5_datasets_of_the_file_itself_pass(jail: Jail, hdf5: Path, inside: str) -> None:
    assert jail.input(f"raw.h5::{inside}") == f"{hdf5}::{inside}"


@pytest.mark.parametrize("inside", ["/outside", "/soft", "/all/raw", "/virtual", "/external", "/all//./raw"])
def test_hdf5_that_leads_to_another_file_is_refused(jail: Jail, hdf5: Path, inside: str) -> None:
    with pytest.raises(InputError, match="keeps its voxels in another file"):
        jail.input(f"{hdf5}::{inside}")


@pytest.mark.usefixtures("hdf5")
def test_hdf5_that_leads_in_circles_or_is_damaged_is_refused(jail: Jail, root: Path) -> None:
    with pytest.raises(InputError, match="more than 64 links"):
        jail.input("raw.h5::/loop")
    (root / "bad.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="cannot be opened as HDF5"):
        jail.input("bad.h5::/raw")


def test_hdf5_behind_a_url_is_looked_at_too(served: str, hdf5: Path) -> None:
    jail = Jail([], [served])
    url = f"{served}/data/{hdf5.name}"
    assert jail.input(f"{url}::/group/raw") == f"{url}::/group/raw"
    with pytest.raises(InputError, match="keeps its voxels in another file"):
        jail.input(f"{url}::/soft")


def test_links_inside_a_folder_must_stay_inside(jail: Jail, root: Path) -> None:
    volume = root / "vol.zarr"
    (volume / "c/0").mkdir(parents=True)
    (volume / "c/0/0").write_bytes(b"")
    (volume / "c/1").symlink_to(root / "sub")
    (volume / "c/again").symlink_to(volume)
    jail.inspect(jail.input("vol.zarr"))
    jail.inspect(jail.input("raw.tif"))
    (volume / "c/0/1").symlink_to(root.parent / "secret/raw.tif")
    with pytest.raises(InputError, match=r"holds a link, '1', that leads out of the data roots"):
        jail.inspect(jail.input("vol.zarr"))
    (volume / "c/0/1").unlink()
    (root / "sub/hidden").symlink_to("/etc")  # behind a link that stays inside
    with pytest.raises(InputError, match=r"holds a link, 'hidden'"):
        jail.inspect(jail.input("vol.zarr"))
