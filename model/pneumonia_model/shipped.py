"""Where the bundle lies that comes with this package: in a source checkout and in an installed wheel alike.

`shipped_bundle`, beside this module, is a link to one of `model/bundles` in a checkout, and a folder in a wheel. This
module needs only the standard library.
"""

from pathlib import Path
from typing import Final

SHIPPED_BUNDLE: Final = (Path(__file__).parent / "shipped_bundle").resolve()
