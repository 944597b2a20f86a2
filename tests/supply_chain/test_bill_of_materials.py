"""The bill of materials is valid CycloneDX and names all that a node is made of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name
from pneumonia_model.bundle import load_bundle
from pneumonia_model.shipped import SHIPPED_BUNDLE

from tests.supply_chain.bill_of_materials import InvalidBillError, bill, validate
from tests.supply_chain.licences import licence_of, vendored
from tests.supply_chain.locks import read_lock


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bill of an environment with the metadata of the node's own lock, as they are installed here."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/*/site-packages")
    for each in read_lock("node"):
        if each.is_for_here:
            files = distribution(each.name).files or ()
            [metadata] = [
                Path(file.locate()).parent for file in files if file.name == "METADATA" and len(file.parts) == 2
            ]
            shutil.copytree(metadata, site / metadata.name)
    return bill(folder / "bin" / "python")


def test_it_names_every_package_of_the_node_with_version_and_licence(node: dict[str, Any]) -> None:
    stated = {
        (canonicalize_name(each["name"]), each["version"], json.dumps(each["licenses"]))
        for each in node["components"]
        if each["type"] == "library"
    }
    locked = [each for each in read_lock("node") if each.is_for_here]
    assert {(name, version) for name, version, _ in stated} == {(each.name, each.version) for each in locked}
    for name, _, licences in stated:
        assert f'"{licence_of(distribution(name))}"' in licences


def test_it_says_which_package_needs_which(node: dict[str, Any]) -> None:
    needs = {each["ref"]: each.get("dependsOn", []) for each in node["dependencies"]}
    [database] = [ref for ref in needs if ref.startswith("alembic")]
    assert database in needs[node["metadata"]["component"]["bom-ref"]]
    assert any(ref.lower().startswith("sqlalchemy") for ref in needs[database])


def test_it_names_the_scripts_of_the_web_page_and_the_model_with_their_hashes(node: dict[str, Any]) -> None:
    hashes = {each["name"]: each["hashes"][0]["content"] for each in node["components"] if each["type"] == "file"}
    assert hashes == {each.file: each.sha256 for each in vendored()}
    bundle = load_bundle(SHIPPED_BUNDLE)
    [model] = [each for each in node["components"] if each["type"] == "machine-learning-model"]
    assert (model["name"], model["version"]) == (bundle.name, bundle.version)
    assert model["properties"] == [{"name": "scp-node:bundle-digest", "value": bundle.digest}]
    assert {each["name"]: each["hashes"][0]["content"] for each in model["components"]} == bundle.manifest["files"]


def test_it_names_the_node_and_when_it_was_written(node: dict[str, Any]) -> None:
    assert node["metadata"]["component"]["name"] == "scp-node"
    assert node["metadata"]["timestamp"]


def test_make_lists_an_environment_that_was_installed_by_hash_for_it(repository: Path) -> None:
    command = ["make", "--dry-run", "sbom", "OF=node oidc"]
    told = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout
    assert "--require-hashes --requirement requirements/node.txt --requirement requirements/oidc.txt" in told
    assert "bill_of_materials .venv-sbom/bin/python dist/scp-node.cdx.json" in told


@pytest.mark.parametrize("broken", [{"type": "gadget"}, {"licenses": [{"license": {"id": "Unheard-Of-1.0"}}]}])
def test_a_bill_that_breaks_the_schema_would_be_seen(node: dict[str, Any], broken: dict[str, Any]) -> None:
    first, *others = node["components"]
    with pytest.raises(InvalidBillError):
        validate({**node, "components": [{**first, **broken}, *others]})
