"""How ONNX Runtime may be asked to run a network on CPUs: one choice at a time changed from what the engine chooses.

Each is measured in a process of its own, which runs images of several sizes one after another, as the service does:

* wall time and CPU time of a pass, whose difference from each other tells what waiting threads burn;
* the same while another thread compresses, as those that store blocks do, and how much it gets done;
* seconds to load, the most memory, and what is still held at the end.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from measuring import MIB, cores
from numpy.typing import NDArray

from emboundary.model.repository import load_model
from emboundary.service.engine.sessions import session_options

Images = NDArray[np.float32]
Change = Callable[[Any], None]
AS_SHIPPED = "as the engine runs"


def _entry(key: str, value: str) -> Change:
    return lambda options: options.add_session_config_entry(key, value)


def _attribute(name: str, value: Any) -> Change:
    return lambda options: setattr(options, name, value)


def _operators_side_by_side(options: Any) -> None:
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = cores()


def _arena_that_grows_as_asked(options: Any) -> None:
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    settings = {
        "max_mem": 0,
        "arena_extend_strategy": 1,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(settings))
    options.add_session_config_entry("session.use_env_allocators", "1")


def _pinned(options: Any) -> None:
    # The calling thread is the first; the runtime counts processors from 1.
    others = sorted(os.sched_getaffinity(0))[1:]
    options.add_session_config_entry("session.intra_op_thread_affinities", ";".join(str(core + 1) for core in others))


def changes() -> dict[str, Change]:
    """What is changed, by its name in the table."""
    level = ort.GraphOptimizationLevel
    threads: dict[str, Change] = {
        f"threads: {count}": _attribute("intra_op_num_threads", count) for count in range(1, cores())
    }
    return {
        AS_SHIPPED: lambda _: None,
        **threads,
        "threads: left to the runtime": _attribute("intra_op_num_threads", 0),
        **({"threads: pinned to cores": _pinned} if cores() > 1 else {}),
        "waiting threads sleep": _entry("session.intra_op.allow_spinning", "0"),
        "waiting threads sleep between runs": _entry("session.force_spinning_stop", "1"),
        "work cut into smaller parts": _entry("session.dynamic_block_base", "4"),
        "operators side by side": _operators_side_by_side,
        "graph: as it is": _attribute("graph_optimization_level", level.ORT_DISABLE_ALL),
        "graph: basic": _attribute("graph_optimization_level", level.ORT_ENABLE_BASIC),
        "graph: extended, without layout": _attribute("graph_optimization_level", level.ORT_ENABLE_EXTENDED),
        "memory: no arena": _attribute("enable_cpu_mem_arena", False),
        "memory: arena that grows as asked": _arena_that_grows_as_asked,
        "memory: arena given back after each run": lambda _: None,  # an option of runs, see ``measure``
        "memory: planned by pattern": _attribute("enable_mem_pattern", True),
        "denormals are zero": _entry("session.set_denormal_as_zero", "1"),
        "weights not packed beforehand": _entry("session.disable_prepacking", "1"),
        "kernels that may differ from run to run": _attribute("use_deterministic_compute", False),
    }


class Neighbour:
    """A thread that compresses all the time, outside Python's lock.

    Attributes:
        done: bytes compressed.
    """

    def __init__(self, content: bytes) -> None:
        self.done = 0
        self._content = content
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._ended.is_set():
            zlib.compress(self._content, 1)
            self.done += len(self._content)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def resident() -> int:
    """Bytes that this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(name: str, model: str, crops: Sequence[Images], passes: int) -> dict[str, Any]:
    """All figures of one change."""
    options = session_options()
    changes()[name](options)
    began = time.perf_counter()
    session = ort.InferenceSession(str(load_model(model).path), options, providers=["CPUExecutionProvider"])
    load_seconds = time.perf_counter() - began
    how = ort.RunOptions()
    if name == "memory: arena given back after each run":
        how.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(image: Images) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        session.run(None, {"image": image}, how)
        return time.perf_counter() - wall, time.process_time() - cpu

    for image in crops:  # the first pass of a size is slower; so does the arena grow
        run(image)
    rows = []
    for image in crops:
        taken = [run(image) for _ in range(passes)]
        rows.append(
            {
                "side": image.shape[-1],
                "seconds": statistics.median(wall for wall, _ in taken),
                "cpu_seconds": statistics.median(cpu for _, cpu in taken),
            }
        )
    content = (crops[-1][0, 0, :512, :512] * 32 + 128).clip(0, 255).astype(np.uint8).tobytes()
    with Neighbour(content) as neighbour:
        began = time.perf_counter()
        beside = [run(crops[-1])[0] for _ in range(passes)]
        compressed = neighbour.done / (time.perf_counter() - began) / MIB
    return {
        "rows": rows,
        "load_seconds": load_seconds,
        "beside_seconds": statistics.median(beside),
        "beside_mib_per_second": compressed,
        "held_bytes": resident(),
    }
