"""What the commands do, once their arguments are parsed."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import cast

import torch
from rich.console import Console

from emboundary.model.export import export_segmenter, footprint_of, mac_facts
from emboundary.model.repository import ZOO
from emboundary.service.engine import Device, OnnxEngine, find_model
from emboundary.service.errors import DeviceError, UsageError
from emboundary.training.compare import Contestant, as_markdown, as_records
from emboundary.training.compare import compare as run_comparison
from emboundary.training.config import load_config
from emboundary.training.data import load_volume
from emboundary.training.evaluate import TorchEngine, score, segment
from emboundary.training.experiment import load_experiment
from emboundary.training.figures import maps, score_curves
from emboundary.training.progress import training_progress
from emboundary.training.runs import fit as fit_run
from emboundary.training.runs import load_run
