"""`make sbom`: the bill of materials of an installed node: packages, scripts of the web page, and the model."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_supported_id
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name
from pneumonia_model.bundle import load_bundle
from pneumonia_model.shipped import SHIPPED_BUNDLE

from tests.supply_chain.licences import licence_of, vendored
from tests.supply_chain.locks import REPOSITORY

SCHEMA: Final = SchemaVersion.V1_6
_TOOL: Final = ("-m", "cyclonedx_py", "environment", "--no-validate", "--pyproject", "pyproject.toml")


class InvalidBillError(Exception):
    """The document breaks the schema of CycloneDX."""


def main() -> None:
    """Write the bill of the environment of an interpreter: `python -m ... PYTHON FILE`."""
    python, file = sys.argv[1:]
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text(json.dumps(bill(Path(python)), indent=2) + "\n", encoding="utf-8")


def bill(python: Path) -> dict[str, Any]:
    """Return what is installed where this interpreter runs, with licences, as a CycloneDX document.

    Raises:
        UnknownLicenceError: a package does not say its licence.
        InvalidBillError: the document is not valid; this would be a fault of this program.
    """
    done = subprocess.run([sys.executable, *_TOOL, str(python)], cwd=REPOSITORY, check=True, capture_output=True)
    document: dict[str, Any] = json.loads(done.stdout)
    licences = _licences(python)
    for component in document["components"]:
        component["licenses"] = _licensed(licences[canonicalize_name(component["name"])])
    document["components"] += [*_scripts(), _model()]
    validate(document)
    return document


def validate(document: dict[str, Any]) -> None:
    """Check a document by the schema of CycloneDX.

    Raises:
        InvalidBillError: it breaks the schema.
    """
    if error := JsonStrictValidator(SCHEMA).validate_str(json.dumps(document)):
        raise InvalidBillError(str(error))


def _licences(python: Path) -> dict[str, str]:
    path = subprocess.run([python, "-c", "import sys; print(*sys.path, sep='\\n')"], check=True, capture_output=True)
    return {
        canonicalize_name(each.metadata["Name"]): licence_of(each)
        for each in distributions(path=path.stdout.decode().splitlines())
    }


def _licensed(expression: str) -> list[dict[str, Any]]:
    stated = {"license": {"id": expression}} if is_supported_id(expression) else {"expression": expression}
    return [stated]


def _scripts() -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "bom-ref": each.file,
            "name": each.file,
            "version": each.version,
            "purl": f"pkg:npm/{each.package}@{each.version}",
            "hashes": [{"alg": "SHA-256", "content": each.sha256}],
            "licenses": _licensed(each.licence),
        }
        for each in vendored()
    ]


def _model() -> dict[str, Any]:
    bundle = load_bundle(SHIPPED_BUNDLE)
    return {
        "type": "machine-learning-model",
        "bom-ref": bundle.name,
        "name": bundle.name,
        "version": bundle.version,
        "licenses": _licensed(bundle.manifest["licence"]),
        "properties": [{"name": "scp-node:bundle-digest", "value": bundle.digest}],
        "components": [
            {
                "type": "file",
                "bom-ref": f"{bundle.name}/{name}",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": sha256}],
            }
            for name, sha256 in bundle.manifest["files"].items()
        ],
    }


if __name__ == "__main__":
    main()
