"""Nothing that the model imports leaves traces or calls home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

OPEN: Final = "from pneumonia_model.backends import onnxruntime_backend"


@pytest.mark.parametrize(("program", "traces"), [(OPEN, False), ("import onnxruntime", True)])
def test_importing_the_runtime_through_the_model_writes_no_device_identifier(
    tmp_path: Path, program: str, *, traces: bool
) -> None:
    # a bare environment: where a variable such as CI is set, the runtime keeps still by itself
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-P", "-c", program], env=environment, check=True, timeout=60)
    assert bool([path for path in tmp_path.rglob("*") if path.is_file()]) == traces
