"""Bodies that schemathesis cannot make up from a schema, for ``SCHEMATHESIS_HOOKS``: small, sound images."""

from __future__ import annotations

from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st
from numpy.typing import NDArray

from emboundary.service.codecs import MediaType, encode


@st.composite
def _sections(draw: st.DrawFn) -> NDArray[np.uint8]:
    shape = draw(st.tuples(st.integers(2, 40), st.integers(2, 40)))
    return np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, shape).astype(np.uint8)


def _bodies(media: MediaType) -> st.SearchStrategy[Any]:
    return _sections().map(lambda section: encode(section, media))


for _media in MediaType:
    schemathesis.openapi.media_type(_media.value, _bodies(_media))
