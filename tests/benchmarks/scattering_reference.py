"""Make tests/model/scattering_reference.npz: scattering coefficients as the kymatio library computes them.

    python -m venv /tmp/kymatio && /tmp/kymatio/bin/pip install "kymatio==0.3.0" "scipy<1.17"
    /tmp/kymatio/bin/python tests/benchmarks/scattering_reference.py

kymatio 0.3.0 cannot be imported beside SciPy 1.17, so it has an environment of its own and the numbers are stored.
Images are taken as periodic (``pre_pad``), because then no border lies between the two: kymatio's Fourier transforms
continue every image periodically anyway.  It leaves the outermost coefficients out.

Every case is stored twice: as the library gives it, and as the same cascade of the library's own filters without its
sampling of the maps between the wavelets, which folds their high frequencies back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from kymatio.numpy import Scattering2D
from numpy.typing import NDArray

OUT = Path(__file__).parents[1] / "model" / "scattering_reference.npz"

# scales, angles, side that is named to kymatio, side that it pads to
CASES = ((1, 6, 28, 32), (2, 8, 20, 28), (3, 4, 24, 40), (3, 8, 24, 40))


def image(side: int) -> NDArray[np.float32]:
    """A disc with an edge, a grating and noise of all frequencies, periodic."""
    y, x = np.mgrid[:side, :side]
    disc = np.hypot(y - 0.4 * side, x - 0.55 * side) < 0.25 * side
    grating = np.sin(2 * np.pi * (3 * x + 2 * y) / side)
    noise = np.random.default_rng(side).standard_normal((side, side))
    return (disc + 0.5 * grating + 0.3 * noise).astype(np.float32)


def unsampled(scattering: Scattering2D, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cascade of the library's filters at full resolution, in its order of paths, and sampled at the end alone."""
    low = scattering.phi["levels"][0]
    wavelets = [(psi["j"], psi["levels"][0]) for psi in scattering.psi]
    zeroth, first, second = [], [], []

    def filtered(of: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.complex128]:
        return np.fft.ifft2(np.fft.fft2(of) * by)

    zeroth.append(filtered(x, low).real)
    for j1, psi1 in wavelets:
        u1 = np.abs(filtered(x, psi1))
        first.append(filtered(u1, low).real)
        second += [filtered(np.abs(filtered(u1, psi2)), low).real for j2, psi2 in wavelets if j2 > j1]
    step = 2**scattering.J
    return np.stack([*zeroth, *first, *second])[:, ::step, ::step][:, 1:-1, 1:-1]


def main() -> None:
    """Compute and store every case."""
    arrays = {}
    for scales, angles, named, side in CASES:
        x = image(side)
        scattering = Scattering2D(scales, (named, named), angles, pre_pad=True)
        case = f"{scales}-{angles}"
        arrays[f"image-{case}"] = x
        arrays[f"library-{case}"] = scattering(x).astype(np.float32)
        arrays[f"unsampled-{case}"] = unsampled(scattering, x).astype(np.float32)
    np.savez_compressed(OUT, **arrays)


if __name__ == "__main__":
    main()
