"""The processes that read headers alone have no library that decodes pixels."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

HEAVY: Final = {"cv2", "gdcm", "jpeg_ls", "PIL", "onnxruntime", "torch"}
PROGRAM: Final = """
import sys
from scp_node.dicom.pixel_libraries import leave_out_pixel_libraries
leave_out_pixel_libraries()
import scp_node.roles.{role}
from scp_node.report.source.description import describe
sex = b"\\x10\\x00\\x40\\x00CS\\x02\\x00F "
assert describe(sex, "1.2.840.10008.1.2.1").sex == "F"
print(*(name for name, module in sys.modules.items() if module is not None))
"""


@pytest.mark.parametrize(("role", "heavy"), [("web", {*HEAVY, "pynetdicom"}), ("listener", HEAVY), ("sender", HEAVY)])
def test_a_role_that_reads_headers_has_no_library_for_pixels(role: str, heavy: set[str]) -> None:
    program = PROGRAM.format(role=role)
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    loaded = set(asked.stdout.split())
    assert "pydicom" in loaded
    assert loaded.isdisjoint(heavy)


def test_a_process_that_has_the_library_loaded_keeps_its_decoders() -> None:
    program = """if True:
        import pydicom
        from scp_node.dicom.pixel_libraries import leave_out_pixel_libraries
        leave_out_pixel_libraries()
        import gdcm
    """
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
