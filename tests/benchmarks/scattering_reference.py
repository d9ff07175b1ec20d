"""Make tests/model/scattering_reference.npz: scattering coefficients as the kymatio library computes them.

    python -m venv /tmp/kymatio && /tmp/kymatio/bin/pip install "kymatio==0.3.0" "scipy<1.17"
    /tmp/kymatio/bin/python tests/benchmarks/scattering_reference.py

kymatio 0.3.0 cannot be imported beside SciPy 1.17, so it has an environment of its own and the numbers are stored.
Images are taken as periodic (``pre_pad``), because then no border lies between the two: kymatio's Fourier transforms
continue every image periodically anyway.  It leaves the outermost coefficients out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from kymatio.numpy import Scattering2D
from numpy.typing import NDArray

OUT = Path(__file__).parents[1] / "model" / "scattering_reference.npz"

# scales, angles, side that is named to kymatio, side that it pads to
CASES = ((1, 6, 28, 32), (2, 8, 24, 32), (3, 4, 24, 40), (3, 8, 40, 56))


def image(side: int) -> NDArray[np.float32]:
    """A disc with an edge, a grating and noise of all frequencies, periodic."""
    y, x = np.mgrid[:side, :side]
    disc = np.hypot(y - 0.4 * side, x - 0.55 * side) < 0.25 * side
    grating = np.sin(2 * np.pi * (3 * x + 2 * y) / side)
    noise = np.random.default_rng(side).standard_normal((side, side))
    return (disc + 0.5 * grating + 0.3 * noise).astype(np.float32)


def main() -> None:
    """Compute and store every case."""
    arrays = {}
    for scales, angles, named, side in CASES:
        x = image(side)
        scattering = Scattering2D(scales, (named, named), angles, pre_pad=True)
        arrays[f"image-{scales}-{angles}"] = x
        arrays[f"coefficients-{scales}-{angles}"] = scattering(x).astype(np.float32)
    np.savez_compressed(OUT, **arrays)


if __name__ == "__main__":
    main()
