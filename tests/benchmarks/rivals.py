"""The same network behind LitServe and behind BentoML, as their documentation would have it.

Both get the session that the service uses (``service.engine``), and do for a request what the service does: read a .npy
file of one section, normalise it by its own mean and deviation, reflect it by the network's halo, run, crop, round to
uint8, write a .npy file.  Neither cuts large images, looks at values, or bounds what it accepts.

``serving.py`` starts them: ``python rivals.py litserve --port N --batch B``; ``python -m bentoml serve rivals:Bento``.
Needs what ``rivals.txt`` beside this file lists.
"""

import argparse
import io
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from emboundary.service.engine import OnnxEngine, find_model

MEDIA = "application/x-npy"
# Where these programs, started by others' command lines, find what they are to do.
DEVICE, MODEL = "RIVALS_DEVICE", "RIVALS_MODEL"
LIMIT_S = float(os.environ.get("RIVALS_LIMIT_S", "300"))
BATCH_WAIT_S = 0.002


class Network:
    """The session, and what stands before and behind it."""

    def __init__(self) -> None:
        device: Any = os.environ.get(DEVICE, "cpu")
        self._engine = OnnxEngine.open(find_model(os.environ.get(MODEL, "d4")), device)
        self._halo, self._stride = self._engine.footprint.halo[1], self._engine.footprint.stride[1]

    def read(self, body: bytes) -> NDArray[np.float32]:
        """A section (y, x), normalised and reflected."""
        section = np.load(io.BytesIO(body), allow_pickle=False).astype(np.float32)
        section = (section - section.mean()) / section.std()
        widths = [(self._halo, self._halo + -extent % self._stride) for extent in section.shape]
        return np.pad(section, widths, mode="reflect")

    def run(self, sections: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Probabilities of sections of one size."""
        return self._engine.run(np.stack(sections)[:, None])[:, 0]

    def write(self, probability: NDArray[np.float32]) -> bytes:
        """The map as a .npy file; the sections that are measured need no extension to the stride."""
        inner = probability[self._halo : -self._halo, self._halo : -self._halo]
        stream = io.BytesIO()
        np.save(stream, np.rint(255 * inner).astype(np.uint8))
        return stream.getvalue()


if find_spec("litserve"):
    import litserve
    from fastapi import Depends, Request, Response

    async def _body(request: Request) -> bytes:
        return await request.body()

    class Lit(litserve.LitAPI):
        """LitServe's worker has the network; bodies come as they are, which is faster than its own JSON and forms."""

        def setup(self, device: str) -> None:  # noqa: ARG002
            self._network = Network()

        def decode_request(self, request: Annotated[bytes, Depends(_body)]) -> Any:
            return self._network.read(request)

        def batch(self, inputs: Any) -> Any:
            return inputs

        def predict(self, x: Any) -> Any:
            return self._network.run(x) if isinstance(x, list) else self._network.run([x])[0]

        def unbatch(self, output: Any) -> Any:
            return list(output)

        def encode_response(self, output: Any) -> Response:
            return Response(self._network.write(output), media_type=MEDIA)


if find_spec("bentoml"):
    import bentoml
    from bentoml.validators import ContentType

    @bentoml.service(workers=1, traffic={"timeout": LIMIT_S})
    class Bento:
        """BentoML's worker has the network; bodies come as they are."""

        def __init__(self) -> None:
            self._network = Network()

        @bentoml.api(route="/predict")
        def predict(self, body: Annotated[bytes, ContentType(MEDIA)], /) -> Annotated[bytes, ContentType(MEDIA)]:
            return self._network.write(self._network.run([self._network.read(body)])[0])


def main() -> None:
    """Serve by LitServe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rival", choices=("litserve",))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    api = Lit(max_batch_size=given.batch, batch_timeout=BATCH_WAIT_S if given.batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", timeout=LIMIT_S)  # the session knows its device by itself
    server.run(port=given.port, generate_client_file=False, host="127.0.0.1")


if __name__ == "__main__":
    main()
