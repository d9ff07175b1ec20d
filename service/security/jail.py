"""Where jobs may read and write: every name that a client sends is turned into a path or URL inside, or refused.

Nothing outside is looked at, so that a refusal tells nothing about it: names are compared before the file system is
asked, and what a link leads to is refused in the same words whether it exists or not.

Whoever can write into a data root can swap a link after it was looked at; this keeps out those who can only send names.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from emboundary.service.errors import EmboundaryError, InputError, UsageError
from emboundary.service.security.links import refuse_links_in_hdf5, refuse_links_out, resolved
from emboundary.service.volumes.hdf5_input import split_name
from emboundary.service.volumes.storage import is_url

SCHEMES = ("https", "http", "s3", "gs")

_LONGEST = 4096
_SHOWN = 200
_PORTS = {"http": 80, "https": 443}
# Addresses at which clouds hand out the machine's credentials, apart from link-local ones.
_METADATA_HOSTS = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_METADATA_ADDRESSES = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")))
# What an encoded form may stand for: letters that need no encoding, or are no part of a path's structure.
_HARMLESS = re.compile(r"[^/\\%.?#@:]*")


@dataclass(frozen=True)
class UrlPrefix:
    """A URL below which jobs may read: its scheme and host exactly, its path at a whole name.

    Attributes:
        scheme: in lower case.
        host: with its port where that is not the scheme's own.
        path: without a slash at its end.
    """

    scheme: str
    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> UrlPrefix:
        """Take a URL apart, strictly: what programs could read in different ways is refused.

        Raises:
            UsageError: no URL that can be read here, or one with parts that are not allowed.
        """
        if not (text.isascii() and text.isprintable()) or any(sign in text for sign in ' \\?#@"<>^`{|}'):
            raise UsageError("a URL must be plain ASCII without spaces, backslashes, query, fragment or user name")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise UsageError("it is no valid URL") from None
        scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
        if scheme not in SCHEMES:
            raise UsageError(f"a URL must begin with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
        if not host:
            raise UsageError("a URL must name a host or bucket")
        _refuse_metadata(host)
        for name in parts.path.split("/"):
            decoded = unquote(name)
            encoded = re.findall(r"%.{0,2}", name)
            if decoded in (".", "..") or not all(_HARMLESS.fullmatch(unquote(form)) for form in encoded):
                raise UsageError("its path must have no . or .. and no encoded signs that have a meaning in URLs")
            if not decoded.isprintable():
                raise UsageError("its path must have no encoded control characters")
        bracketed = f"[{host}]" if ":" in host else host
        shown = bracketed if port in (None, _PORTS.get(scheme)) else f"{bracketed}:{port}"
        return cls(scheme, shown, parts.path.rstrip("/"))

    def holds(self, other: UrlPrefix) -> bool:
        """Whether another URL is this one, or below it."""
        return (self.scheme, self.host) == (other.scheme, other.host) and f"{other.path}/".startswith(f"{self.path}/")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"


class Jail:
    """The folders and URLs that are open to jobs.

    Args:
        data_roots: folders that exist; jobs read and write in them.
        url_prefixes: URLs; jobs read below them.

    Raises:
        UsageError: a prefix that is no URL, or a URL that nobody may open.
    """

    def __init__(self, data_roots: Sequence[Path], url_prefixes: Sequence[str] = ()) -> None:
        self._roots = tuple((root.absolute(), root.resolve()) for root in data_roots)
        self._prefixes = tuple(_prefix(text) for text in url_prefixes)

    def input(self, text: str) -> str:
        """The path or URL of a volume, to be opened as it is returned; an HDF5 dataset as ``file.h5::/name``.

        Raises:
            InputError: outside, or of a form that could be read as something outside.
        """

        def refuse(rule: str) -> InputError:
            return InputError(f"input is {_shown(text)}; {rule}")

        _refuse_strange(text, refuse)
        if is_url(text):
            return self._url(text, refuse)
        whole = self._path(text, refuse)
        named = split_name(text)
        if named is None or whole.exists():
            if whole.exists() and not (whole.is_file() or whole.is_dir()):
                raise refuse("it is neither a file nor a folder; name a volume")  # a pipe would be waited for
            return str(whole)
        name, inside = named
        file = self._path(name, refuse)
        if not file.is_file():
            raise refuse("there is no such file; name one inside a data root of this service")
        refuse_links_in_hdf5(text, str(file), inside)
        return f"{file}::{inside}"

    def inspect(self, source: str) -> None:
        """Look through a folder that ``input`` has returned, before it is read, for links that lead out of the roots.

        It takes as long as listing all files of the volume.

        Raises:
            InputError: there is one.
        """
        if not is_url(source) and Path(source).is_dir():
            refuse_links_out(Path(source), self._holds)

    def output(self, text: str) -> Path:
        """The path of a map that is to be written.

        Raises:
            UsageError: outside, or a name that is kept for the service's own files.
        """

        def refuse(rule: str) -> UsageError:
            return UsageError(f"output is {_shown(text)}; {rule}")

        _refuse_strange(text, refuse)
        if is_url(text) or "::" in text:
            raise refuse("maps are written to files and folders: give the name of one inside a data root")
        path = self._path(text, refuse, follow_last=False)
        if any(name.startswith(".") for name in self._below(path).parts):
            raise refuse("names that begin with a dot are kept for unfinished maps: give another one")
        if path.is_symlink():
            raise refuse("it is a link; give the name of a file or folder, or of none yet")
        if any(path == real for _, real in self._roots):
            raise refuse("it is a data root itself; give a name inside")
        return path

    def reads(self, url: str) -> bool:
        """Whether a URL, as a server names it in a redirection, may be read."""
        try:
            found = UrlPrefix.parse(url)
        except UsageError:
            return False
        return any(prefix.holds(found) for prefix in self._prefixes)

    def _url(self, text: str, refuse: Callable[[str], EmboundaryError]) -> str:
        named = split_name(text)
        where, inside = (text, None) if named is None else named
        if "::" in where:
            raise refuse("URLs cannot be chained: give one URL, or file.h5::/NAME for an HDF5 dataset")
        try:
            url = UrlPrefix.parse(where)
        except UsageError as error:
            raise refuse(str(error)) from None
        if not any(prefix.holds(url) for prefix in self._prefixes):
            raise refuse("it must be below one of the URLs that this service may read: ask the operator which")
        _refuse_metadata_behind(url, refuse)
        # Rebuilt from its parts: what is opened is what was looked at.
        if inside is None:
            return str(url)
        refuse_links_in_hdf5(text, str(url), inside)
        return f"{url}::{inside}"

    def _path(self, text: str, refuse: Callable[[str], EmboundaryError], *, follow_last: bool = True) -> Path:
        if not self._roots:
            raise refuse("this service opens no files: ask the operator for a data root")
        given = Path(text)
        if text.startswith("~") or ".." in given.parts:
            raise refuse("names with .. or ~ are not followed: give the name itself, inside a data root")
        if given.is_absolute():
            inside = any(given.is_relative_to(root) for pair in self._roots for root in pair)
        elif len(self._roots) == 1:
            given, inside = self._roots[0][1] / given, True
        else:
            raise refuse("this service has several data roots: give the whole path, beginning with one of them")
        outside = refuse("it must lie inside a data root of this service: ask the operator which there are")
        if not inside:
            raise outside
        path = resolved(given if follow_last else given.parent)
        if path is None:
            raise outside
        path = path if follow_last else path / given.name
        if not self._holds(path):
            raise outside
        return path

    def _holds(self, path: Path) -> bool:
        return any(path.is_relative_to(real) for _, real in self._roots)

    def _below(self, path: Path) -> Path:
        return next(path.relative_to(real) for _, real in self._roots if path.is_relative_to(real))


def _prefix(text: str) -> UrlPrefix:
    try:
        return UrlPrefix.parse(text)
    except UsageError as error:
        raise UsageError(f"url_prefixes has {_shown(text)}; {error}") from None


def _refuse_strange(text: str, refuse: Callable[[str], EmboundaryError]) -> None:
    if not text or len(text) > _LONGEST:
        raise refuse(f"a name must have between 1 and {_LONGEST} characters")
    # Control characters, and halves of characters that no file name can hold.
    if not text.isprintable() or text != text.strip():
        raise refuse("a name must have no control characters, and no space at its ends")


def _refuse_metadata(host: str) -> None:
    numeric = host.partition("%")[0]
    try:
        # Also 2852039166, 0xa9fea9fe and 169.254.43518, which libraries take for addresses.
        address = ipaddress.ip_address(numeric if ":" in numeric else socket.inet_ntoa(socket.inet_aton(numeric)))
    except (OSError, ValueError):
        if host.rstrip(".") in _METADATA_HOSTS:
            raise UsageError("it names a service that hands out a machine's credentials") from None
        return
    if _is_metadata(address):
        raise UsageError("it names an address that hands out a machine's credentials")


def _refuse_metadata_behind(url: UrlPrefix, refuse: Callable[[str], EmboundaryError]) -> None:
    """Refuse a name whose address is that of a metadata service; one that has no address fails when it is opened."""
    if url.scheme not in _PORTS:
        return
    try:
        found = socket.getaddrinfo(urlsplit(str(url)).hostname, None, type=socket.SOCK_STREAM)
    except OSError:
        return
    if any(_is_metadata(ipaddress.ip_address(str(address[0]).partition("%")[0])) for *_, address in found):
        raise refuse("its host has an address that hands out a machine's credentials")


def _is_metadata(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    plain = getattr(address, "ipv4_mapped", None) or address
    return plain.is_link_local or plain in _METADATA_ADDRESSES


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
