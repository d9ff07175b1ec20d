"""Whether the default model runs as ``emboundary serve`` would run it."""

from __future__ import annotations

from emboundary.service.diagnosis.apart import ProbeError, ask
from emboundary.service.diagnosis.question import Question
from emboundary.service.finding import Finding

_PATIENCE_S = 120.0


def check_inference(question: Question) -> Finding:
    """Open the default model on the device that serving would take, and run a small image, in a process of its own."""
    config = None if question.config is None else str(question.config)
    try:
        answer = ask("serving", {"config": config, "options": dict(question.options)}, _PATIENCE_S)
    except ProbeError as error:
        return Finding("inference", "failed", str(error), "mend what failed above", {"works": False})
    speed = answer["voxels_per_second"] / 1e6
    found = (
        f"{answer['model']} ran in {answer['precision']} on the {'GPU' if answer['device'] == 'cuda' else 'CPU'}, one "
        f"small image at {speed:.2f} million voxels per second: a hint, not a measurement"
    )
    return Finding("inference", "ok", found, facts={"works": True, **answer})
