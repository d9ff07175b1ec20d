"""Inference and repository calls in the OpenAPI document, which FastAPI cannot derive: their bodies are read here."""

from __future__ import annotations

from typing import Any

import msgspec

from emboundary.service.v2.asking import LENGTH_HEADER
from emboundary.service.v2.messages import IndexRequest, InferReply, InferRequest, LoadRequest, UnloadRequest

_BYTES = "application/octet-stream"
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_QUESTION = {
    "id": "section 7",
    "inputs": [{"name": "image", "shape": [2, 3], "datatype": "UINT8", "data": [[12, 200, 31], [40, 50, 60]]}],
    "parameters": {"intensity": "128,45.5", "dtype": "uint8"},
    "outputs": [{"name": "probability", "parameters": {"binary_data": False}}],
}
_ANSWER = {
    "model_name": "d4",
    "model_version": "1",
    "outputs": [{"name": "probability", "shape": [2, 3], "datatype": "UINT8", "data": [3, 250, 9, 4, 0, 17]}],
    "parameters": {"intensity": "128.0,45.5", "model_sha256": 64 * "0", "device": "cpu"},
    "id": "section 7",
}
_LENGTH: dict[str, Any] = {"schema": {"type": "integer", "minimum": 1}}


def _json(kind: type[msgspec.Struct], example: object) -> dict[str, Any]:
    """A JSON body: its schema without references, which would have no place to point to, and an example."""
    schema = msgspec.json.schema(kind)
    return {"schema": _inlined(schema, schema.pop("$defs")), "example": example}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in node.items()}


def _optional(kind: type[msgspec.Struct], example: object) -> dict[str, Any]:
    return {"requestBody": {"required": False, "content": {"application/json": _json(kind, example)}}}


INFER: dict[str, Any] = {
    "parameters": [
        {
            "name": LENGTH_HEADER,
            "in": "header",
            "required": False,
            "description": "length in bytes of the JSON, where the tensor's bytes follow it",
            **_LENGTH,
        }
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": _json(InferRequest, _QUESTION), _BYTES: _BINARY},
    },
}
INFERRED: dict[str, Any] = {
    "description": "The map, in the shape of the image: in the JSON, or as bytes behind it.",
    "headers": {LENGTH_HEADER: {"description": "Length in bytes of the JSON, where bytes follow it.", **_LENGTH}},
    "content": {"application/json": _json(InferReply, _ANSWER), _BYTES: _BINARY},
}
INDEXED: dict[str, Any] = {
    "content": {"application/json": {"example": [{"name": "d4", "version": "1", "state": "READY", "reason": ""}]}}
}
INDEX = _optional(IndexRequest, {"ready": True})
LOAD = _optional(LoadRequest, {})
UNLOAD = _optional(UnloadRequest, {"parameters": {"unload_dependents": False}})
