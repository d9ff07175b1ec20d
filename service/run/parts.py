"""From stored voxels to stored probabilities, by whatever engine: on its device where it can, else here.

    answer = T(crop(f(pad((voxels - mean) / std))))

Both ways do the same arithmetic in the same order, so that a map does not depend on the way (law 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from emboundary.service.engine import Answer, Engine, Images, Mapper, Part
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import to_stored

Side = tuple[int, int]


def mapper_of(engine: Engine) -> Mapper | None:
    """What maps stored voxels on the engine's device; None: it takes images, as the simplest engines do."""
    found: Mapper | None = getattr(engine, "mapper", None)
    return found


def answers(engine: Engine, parts: Sequence[Part], side: Side | None = None, *, powers: bool = False) -> list[Answer]:
    """The maps of parts that share a run of a network.

    Args:
        engine: the network.
        parts: of one shape (c, y, x).
        side: (y, x) that images are padded to, with zeros below and to the right; None: theirs.
        powers: whether runs have 1, 2, 4, 8, ... sections, and no other numbers.
    """
    wanted = parts[0].voxels.shape[2:] if side is None else side
    pieces: list[list[Answer]] = [[] for _ in parts]
    for group in _groups(parts, powers=powers):
        numbers, members = zip(*group, strict=True)
        mapper = mapper_of(engine)
        found = _mapped(engine, members, wanted) if mapper is None else mapper.map(members, wanted)
        for number, answer in zip(numbers, found, strict=True):
            pieces[number].append(answer)
    return [_joined(several) for several in pieces]


def image_of(part: Part) -> Images:
    """A part's normalised images (n, c, y, x)."""
    if part.voxels.dtype == np.float32 and (part.mean, part.std) == (0.0, 1.0):
        return np.ascontiguousarray(part.voxels)  # normalised before
    return np.ascontiguousarray(Intensity(part.mean, part.std).normalise(part.voxels))


def _mapped(engine: Engine, parts: Sequence[Part], side: Side) -> list[Answer]:
    with np.errstate(over="ignore", invalid="ignore"):  # found in the result, wherever they arise
        images = [_padded(image_of(part), side) for part in parts]
    probability = engine.run(images[0] if len(images) == 1 else np.concatenate(images))
    found, first = [], 0
    for part in parts:
        n = len(part.voxels)
        kept = probability[first : first + n, :, : part.voxels.shape[2], : part.voxels.shape[3]]
        kept = kept[:, :, part.rows, part.columns]
        first += n
        finite = bool(np.isfinite(kept).all())
        with np.errstate(invalid="ignore"):  # told by ``finite``
            found.append(Answer(to_stored(kept, part.dtype), finite))
    return found


def _padded(images: Images, side: Side) -> Images:
    below, right = (wanted - found for wanted, found in zip(side, images.shape[2:], strict=True))
    return np.pad(images, ((0, 0), (0, 0), (0, below), (0, right))) if below or right else images


def _groups(parts: Sequence[Part], *, powers: bool) -> Iterator[list[tuple[int, Part]]]:
    """Parts with their numbers, cut where a run ends."""
    left = sum(len(part.voxels) for part in parts)
    room = _run(left, powers=powers)
    group: list[tuple[int, Part]] = []
    for number, part in enumerate(parts):
        first, n = 0, len(part.voxels)
        while first < n:
            last = min(n, first + room)
            group.append((number, part if (first, last) == (0, n) else part.some(first, last)))
            room -= last - first
            left -= last - first
            first = last
            if not room:
                yield group
                group, room = [], _run(left, powers=powers)


def _run(left: int, *, powers: bool) -> int:
    return 1 << (left.bit_length() - 1) if powers and left else left


def _joined(answers: list[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    return Answer(np.concatenate([answer.stored for answer in answers]), all(answer.finite for answer in answers))
