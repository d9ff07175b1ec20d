"""Serving needs none of the training packages: they are made impossible to import, and a request is served."""

import subprocess
import sys
from pathlib import Path

BLOCKED = ("torch", "onnx", "onnxscript", "safetensors", "matplotlib", "scipy", "sklearn", "skimage", "pandas")

PROGRAM = """
import asyncio, io, sys
from pathlib import Path

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(sys.argv[2:]):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())

import httpx, numpy as np
import emboundary.service.cli
from emboundary.service.app import create_app
from emboundary.service.settings import Settings

async def ask(app):
    body = io.BytesIO()
    np.save(body, np.eye(9))
    async with app.router.lifespan_context(app), httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1"
    ) as client:
        headers = {"Content-Type": "application/x-npy", "Accept": "image/png"}
        return await client.post("/v1/predict", content=body.getvalue(), headers=headers)

response = asyncio.run(ask(create_app(Settings(repository=Path(sys.argv[1]), device="cpu"))))
print(response.status_code, response.headers["content-type"], sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


def test_a_request_is_served_without_the_training_packages(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(repository), *BLOCKED], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "200 image/png []", done.stderr


def test_the_block_blocks(repository: Path) -> None:
    program = PROGRAM.replace("import httpx, numpy as np", "import httpx, numpy as np, torch")
    done = subprocess.run(
        [sys.executable, "-c", program, str(repository), *BLOCKED], capture_output=True, text=True, check=False
    )
    assert "ImportError: torch is blocked" in done.stderr
