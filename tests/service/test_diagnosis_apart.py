from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from emboundary.service.diagnosis import apart
from emboundary.service.diagnosis.apart import ProbeError, ask


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the name that is asked for as a program, in place of the probes."""
    monkeypatch.setattr(apart, "_COMMAND", [sys.executable, "-c", "import sys; exec(sys.argv[1])"])


def test_a_probe_answers_from_its_own_process(tmp_path: Path) -> None:
    assert ask("disk", {"folder": str(tmp_path / "none")}, 60)["exists"] is False


def test_an_error_of_a_probe_is_said() -> None:
    with pytest.raises(ProbeError, match="'folder'"):
        ask("disk", {}, 60)


@pytest.mark.usefixtures("child")
def test_what_hangs_is_left_behind_in_time() -> None:
    began = time.monotonic()
    with pytest.raises(ProbeError, match=r"^no answer within 0\.3 s$"):
        ask("import time; time.sleep(60)", {}, 0.3)
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("child")
def test_a_crash_is_named_by_its_signal() -> None:
    with pytest.raises(ProbeError, match="was ended by SIGSEGV"):
        ask("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", {}, 30)


@pytest.mark.usefixtures("child")
def test_an_end_without_an_answer_is_told_by_its_code() -> None:
    with pytest.raises(ProbeError, match="ended with code 3 and no answer"):
        ask("sys.exit(3)", {}, 30)


@pytest.mark.usefixtures("child")
def test_what_libraries_print_before_is_no_answer() -> None:
    assert ask("""print('EP Error'); print('{"answer": {"works": true}}')""", {}, 30) == {"works": True}
