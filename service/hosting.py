"""The served models: each opened once, run one inference at a time, with a bounded number of waiting requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from emboundary.model.description import ModelDescription
from emboundary.model.repository import ModelEntry, ModelError, list_models, load_model
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import ModelUnavailableError
from emboundary.service.problems import RequestError
from emboundary.service.settings import Settings


class ModelHost:
    """One served model.

    Attributes:
        entry: the file and its description.
    """

    def __init__(self, entry: ModelEntry, settings: Settings) -> None:
        self.entry = entry
        self._settings = settings
        self._engine: OnnxEngine | None = None
        self._turn = asyncio.Lock()
        self._present = 0

    @property
    def description(self) -> ModelDescription:
        """What the model file promises."""
        return self.entry.description

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the places for requests that are served or wait, from before the body until the answer.

        Raises:
            RequestError: 429 where all are taken.
        """
        limit = self._settings.max_waiting
        if self._present >= limit:
            raise RequestError(
                429,
                f"{self._present} requests for model {self.description.name} are in progress, at most {limit} are "
                "accepted: try again after the seconds that Retry-After names",
                headers={"Retry-After": "1"},
            )
        self._present += 1
        try:
            yield
        finally:
            self._present -= 1

    def open(self) -> OnnxEngine:
        """The engine; the first call loads the file, and a failed one leaves nothing behind.

        Raises:
            DeviceError: the device that was asked for does not work here.
            ModelUnavailableError: a file that is damaged or differs from its description.
        """
        if self._engine is None:
            self._engine = OnnxEngine.open(self.entry, self._settings.device)
        return self._engine

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[OnnxEngine]:
        """Wait for everybody who came before, then hold the engine alone."""
        async with self._turn:
            yield await asyncio.to_thread(self.open)


class ModelHosts:
    """All served models by name; the default one first.

    Attributes:
        default: the one that answers where a request names none.
    """

    def __init__(self, default: ModelHost, others: tuple[ModelHost, ...]) -> None:
        self.default = default
        self._by_name = {host.description.name: host for host in (*others, default)}

    @classmethod
    def of(cls, settings: Settings) -> ModelHosts:
        """Find the models that ``settings`` name and check their hashes; no engine is opened yet.

        Raises:
            ModelUnavailableError: no such model, or a file that is not what its description says.
        """
        repository = settings.repository
        try:
            default = load_model(_name_or_path(settings.model), repository)
            others = [load_model(name, repository) for name in list_models(repository)]
        except (ModelError, OSError) as error:
            raise ModelUnavailableError(str(error)) from error
        return cls(
            ModelHost(default, settings),
            tuple(ModelHost(entry, settings) for entry in others if entry.description.name != default.description.name),
        )

    def __iter__(self) -> Iterator[ModelHost]:
        yield self.default
        yield from (host for host in self._by_name.values() if host is not self.default)

    def find(self, name: str | None) -> ModelHost:
        """The model of that name; the default one for None.  Names only: a request never chooses a path.

        Raises:
            RequestError: 404 for a name that is not served.
        """
        if name is None:
            return self.default
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(host.description.name for host in self)
            raise RequestError(404, f"model is {name!r}; served here are {known} (GET /v1/models)") from None


def _name_or_path(model: str) -> str | Path:
    return Path(model) if "/" in model else model
