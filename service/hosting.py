"""The served models: found in a repository, opened when first needed, exchanged while requests go on.

What a request has found stays alive until the request has ended, whatever is loaded or unloaded meanwhile; and a
model whose new files are wrong goes on being served from the old ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emboundary.model.description import ModelDescription
from emboundary.model.repository import (
    ModelEntry,
    ModelError,
    canonical_name,
    list_models,
    list_versions,
    load_model,
    load_version,
)
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import EmboundaryError, ModelUnavailableError, first_line
from emboundary.service.refusal import RequestError
from emboundary.service.settings import Settings

OpenEngine = Callable[[ModelEntry], OnnxEngine]
Prepare = Callable[[OnnxEngine], None]


class Served:
    """One version of a model.

    Args:
        entry: the file and its description.
        open_engine: opens it where it is to run.
        prepare: called with the network when it has been opened, before anybody else sees it.
    """

    def __init__(self, entry: ModelEntry, open_engine: OpenEngine, prepare: Prepare) -> None:
        self.entry = entry
        self._open = open_engine
        self._prepare = prepare
        self._engine: OnnxEngine | None = None
        self._lock = threading.Lock()

    @property
    def description(self) -> ModelDescription:
        """What the model file promises."""
        return self.entry.description

    @property
    def opened(self) -> OnnxEngine | None:
        """The network, if it is open already."""
        return self._engine

    def engine(self) -> OnnxEngine:
        """The network; the first call loads the file, and a failed one leaves nothing behind.

        Raises:
            DeviceError: the device that was asked for does not work here.
            ModelUnavailableError: a file that is damaged or differs from its description.
            UsageError: it does not offer the precision that is served.
        """
        with self._lock:
            if self._engine is None:
                engine = self._open(self.entry)
                self._prepare(engine)
                self._engine = engine
            return self._engine


@dataclass(frozen=True)
class IndexEntry:
    """What is known of one version of a model.

    Attributes:
        state: whether it is served.
        reason: why not; empty where it is.
    """

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


class Models:
    """All served models by name and version.

    Args:
        settings: the repository, the default model, and the device.
        prepare: called with every network when it is opened: warms it up.

    Raises:
        ModelUnavailableError: no such default model, or a file that is not what its description says.  Others that
            are wrong are left out, and ``index`` says why.
    """

    def __init__(self, settings: Settings, prepare: Prepare = lambda _: None) -> None:
        self._prepare = prepare
        self._repository = settings.repository
        self._settings = settings
        self._model = settings.model
        self._lock = threading.Lock()
        default = self._open_default()
        self._default_name = default.description.name
        self._served: dict[str, tuple[Served, ...]] = {self._default_name: (default,)}
        self._refused: dict[str, tuple[IndexEntry, ...]] = {}
        for name in list_models(self._repository):
            self._take(name, *self._read(name))

    @property
    def default(self) -> Served:
        """What answers where a request names no model."""
        return self._served[self._default_name][0]

    def __iter__(self) -> Iterator[Served]:
        """The newest version of every model, the default first."""
        served = self._served
        yield served[self._default_name][0]
        yield from (versions[0] for name, versions in served.items() if name != self._default_name)

    def versions(self, name: str) -> tuple[Served, ...]:
        """Served versions of a model, the newest first.

        Raises:
            RequestError: 404 for a name that is not served.
        """
        served = self._served
        try:
            return served[canonical_name(name, served)]
        except KeyError:
            known = ", ".join(served.description.name for served in self)
            raise RequestError(404, f"model is {name!r}; served here are {known} (GET /v1/models)") from None

    def find(self, name: str | None, version: str | None = None) -> Served:
        """A model by name, the default one for None; its newest version, where none is named.

        Names only: a request never chooses a path.

        Raises:
            RequestError: 404 for a name or version that is not served.
        """
        versions = self.versions(self._default_name if name is None else name)
        if version is None:
            return versions[0]
        for served in versions:
            if served.description.version == version:
                return served
        known = ", ".join(served.description.version for served in versions)
        raise RequestError(404, f"version of model {name} is {version!r}; served here are {known}")

    def index(self) -> tuple[IndexEntry, ...]:
        """Everything in the repository, served or not; a served one has a reason where its files are now wrong."""
        refused = {(e.name, e.version): e for entries in self._refused.values() for e in entries}
        ready = []
        for versions in self._served.values():
            for served in versions:
                key = served.description.name, served.description.version
                wrong = refused.pop(key, None)
                ready.append(IndexEntry(*key, "READY", "" if wrong is None else wrong.reason))
        return (*ready, *refused.values())

    def load(self, name: str) -> None:
        """Read a model's folder again and serve what is there; engines are opened before they are served.

        Raises:
            RequestError: 404 where the repository has no such model; 422 where no version of it can be served: what
                was served before still is.
        """
        stored = list_models(self._repository)
        name = canonical_name(name, {*stored, *self._served})
        if name not in stored and not (name == self._default_name and "/" in self._model):
            raise RequestError(
                404, f"model is {name!r}; the repository holds {', '.join(stored)}: put NAME/VERSION/model.onnx there"
            )
        found, refused = self._read(name)
        opened = []
        for served in found:
            try:
                served.engine()
                opened.append(served)
            except EmboundaryError as error:
                refused = (*refused, _refusal(name, served.description.version, error))
        if not opened:
            reasons = "; ".join(f"version {entry.version}: {entry.reason}" for entry in refused)
            self._take(name, (), refused)
            raise RequestError(422, f"model {name} cannot be served ({reasons}); what was served before still is")
        self._take(name, tuple(opened), refused)

    def unload(self, name: str) -> None:
        """Serve a model no more; requests that found it end well.

        Raises:
            RequestError: 404 for a name that is not served; 409 for the default model.
        """
        versions = self.versions(name)
        name = canonical_name(name, self._served)
        if name == self._default_name:
            raise RequestError(409, f"model {name} is the default one and stays; serve another with --model first")
        with self._lock:
            self._served = {other: served for other, served in self._served.items() if other != name}
            gone = (IndexEntry(name, served.description.version, "UNAVAILABLE", "unloaded") for served in versions)
            self._refused = {**self._refused, name: tuple(gone)}

    def _open(self, entry: ModelEntry) -> OnnxEngine:
        settings = self._settings
        return OnnxEngine.open(entry, settings.device, settings.precision, settings.gpu)

    def _open_default(self) -> Served:
        model = self._model
        try:
            return Served(
                load_model(Path(model) if "/" in model else model, self._repository), self._open, self._prepare
            )
        except (ModelError, OSError) as error:
            raise ModelUnavailableError(str(error)) from error

    def _read(self, name: str) -> tuple[tuple[Served, ...], tuple[IndexEntry, ...]]:
        """What the repository holds of a model: versions whose files are right, and the others."""
        if name == self._default_name and "/" in self._model:
            try:
                return (self._open_default(),), ()
            except ModelUnavailableError as error:
                return (), (_refusal(name, "0", error),)
        served, refused = [], []
        known = self._served.get(name, ())
        before = {(s.description.version, s.description.sha256): s for s in known}
        for version in list_versions(name, self._repository):
            try:
                entry = load_version(name, version, self._repository)
                served.append(
                    before.get((version, entry.description.sha256)) or Served(entry, self._open, self._prepare)
                )
            except (ModelError, OSError) as error:
                refused.append(_refusal(name, version, error))
        return tuple(served), tuple(refused)

    def _take(self, name: str, served: tuple[Served, ...], refused: tuple[IndexEntry, ...]) -> None:
        with self._lock:  # whoever reads sees the old table or the new one
            if served:
                self._served = {**self._served, name: served}
            self._refused = {**self._refused, name: refused}


def _refusal(name: str, version: str, error: Exception) -> IndexEntry:
    return IndexEntry(name, version, "UNAVAILABLE", first_line(error))
