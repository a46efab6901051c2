import signal
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import os, signal, time
os.kill(os.getpid(), signal.{name})
time.sleep(0.2)
print("imported", flush=True)
"""
SCRIPT = """
import signal, sys, time
from builders.command_line.report_errors import report_errors
from builders.coordination.signals import Preempted, on_signals
sys.path.insert(0, sys.argv[1])
with report_errors("program", ""):
    with on_signals():
        try:
            import slow
            time.sleep(20)
        except Preempted:
            print("dropped")
"""


@pytest.mark.parametrize(("name", "status", "message"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 0, "")])
def test_interrupts__are_delayed_until_an_import_has_ended(
    tmp_path: Path, name: str, status: int, message: str
) -> None:
    (tmp_path / "slow.py").write_text(MODULE.format(name=name))
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert ended.returncode == status and message in ended.stderr and ended.stdout.startswith("imported")
    assert ("dropped" in ended.stdout) == (name == "SIGTERM")


SWALLOWED = """
import os, signal
from builders.command_line.report_errors import report_errors
from builders.errors import UserError
with report_errors("program", ""):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise UserError("the file cannot be read")
"""


def test_interrupts__are_reported_even_if_a_library_converts_them() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SWALLOWED],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (ended.returncode, ended.stderr.split(";")[0]) == (130, "program: interrupted")
