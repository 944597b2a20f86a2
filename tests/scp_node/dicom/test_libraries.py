"""No process of the node has a large library that it does not need."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

PIXELS: Final = {"cv2", "gdcm", "jpeg_ls", "PIL", "onnxruntime", "torch"}
LARGE: Final = {"highdicom", "pandas", "requests", "scipy", "tqdm", "alembic"}
PROGRAM: Final = """
import sys
from scp_node.app import LIBRARIES_LEFT_OUT, Role
from scp_node.dicom.libraries import leave_out_libraries
leave_out_libraries(*LIBRARIES_LEFT_OUT[Role("{role}")])
import scp_node.roles.{role}
from scp_node.report.source.description import describe
sex = b"\\x10\\x00\\x40\\x00CS\\x02\\x00F "
assert describe(sex, "1.2.840.10008.1.2.1").sex == "F"
print(*(name for name, module in sys.modules.items() if module is not None))
"""


@pytest.mark.parametrize(
    ("role", "unneeded"),
    [
        ("listener", {*PIXELS, "numpy", "fastapi", "scp_node.analysis", "scp_node.report.objects"}),
        ("sender", {*PIXELS, "numpy", "fastapi", "scp_node.analysis", "scp_node.listener", "scp_node.report.objects"}),
        ("web", {*PIXELS, "pynetdicom", "scp_node.analysis.analyse", "scp_node.listener", "scp_node.report.objects"}),
        ("worker", {"pynetdicom", "fastapi", "torch", "scp_node.listener", "scp_node.delivery"}),
    ],
)
def test_a_role_has_no_library_that_it_does_not_need(role: str, unneeded: set[str]) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(role=role)], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    loaded = set(asked.stdout.split())
    assert {"pydicom", "sqlalchemy"} <= loaded
    assert loaded & {*LARGE, *unneeded} == set()


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["supervise", "{}"], {"sqlalchemy", "numpy", "pydicom", "pynetdicom", "typer", "rich", "scp_node.ledger"}),
        (["serve", "--supervised", "--role", "sender", "--config", "absent.toml"], {"typer", "rich", "numpy"}),
    ],
)
def test_a_process_of_the_node_has_no_command_line_and_the_supervisor_no_sql(
    arguments: list[str], unneeded: set[str]
) -> None:
    program = f"""if True:
        import runpy, sys
        sys.argv[1:] = {arguments}
        try:
            runpy.run_module("scp_node", run_name="__main__")
        except (SystemExit, TypeError):  # the settings are not there, or the plan is empty
            print(*(name for name, module in sys.modules.items() if module is not None))
    """
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(asked.stdout.split())
    assert "scp_node.runtime.supervisor" in loaded
    assert loaded & unneeded == set()


def test_a_process_that_has_the_library_loaded_keeps_its_decoders() -> None:
    program = """if True:
        import pydicom
        from scp_node.dicom.libraries import PIXELS, leave_out_libraries
        leave_out_libraries(*PIXELS)
        import gdcm
    """
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
