"""The models of the repository in force, and their files in every precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emboundary.service.finding import Finding


def check_models(repository: Path | None = None, model: str | None = None) -> Finding:
    """Whether the models are there and their files are what their descriptions say.

    Args:
        repository: folder of ``NAME/VERSION/model.onnx``; None: the bundled one.
        model: name or path of the default model; None: the bundled default.
    """
    from emboundary.model.repository import DEFAULT_MODEL, ZOO, ModelError, list_models, load_model

    repository, model = repository or ZOO, model or DEFAULT_MODEL
    again = "install emboundary again" if repository == ZOO else "copy its folder again, or export it again"
    found: list[str] = []
    faults: list[str] = []
    facts: dict[str, Any] = {"repository": str(repository), "models": {}}
    names: list[str | Path] = [*list_models(repository)]
    if model not in names:
        names.append(Path(model) if Path(model).exists() else model)
    for name in names:
        try:
            entry = load_model(name, repository)
            description = entry.description
            sums = {"float32": str(description.sha256)}
            for precision, variant in description.variants.items():
                entry.file(precision)
                sums[precision] = variant.sha256
        except (ModelError, OSError) as error:
            faults.append(str(error))
            continue
        more = f", {'+'.join(p for p in sums if p != 'float32')}" if len(sums) > 1 else ""
        found.append(f"{description.name} {description.version} ({sums['float32'][:8]}{more})")
        facts["models"][description.name] = {"version": description.version, "sha256": sums}
    if faults:
        return Finding("models", "failed", "; ".join(faults), again, facts)
    return Finding("models", "ok", ", ".join(found), facts=facts)
