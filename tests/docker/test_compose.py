"""The trial set-up: the node beside Orthanc, each with no more rights than it needs, and settings that fit together."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from scp_node.settings_file import load_settings
from tests.docker.files import is_pinned

SERVICES: Final = ["node", "orthanc"]


@pytest.fixture
def compose(repository: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((repository / "docker" / "compose.yaml").read_text())
    return content


@pytest.fixture
def orthanc_json(repository: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((repository / "docker" / "orthanc.json").read_text())
    return content


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_rights_beyond_its_own_data(compose: dict[str, Any], service: str) -> None:
    described = compose["services"][service]
    assert described["read_only"] is True
    assert described["tmpfs"] == ["/tmp"]  # noqa: S108 - inside the container
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in described
    assert "cap_add" not in described


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_says_whether_it_is_well(compose: dict[str, Any], service: str) -> None:
    test = compose["services"][service]["healthcheck"]["test"]
    assert test[0] == "CMD"  # no shell between


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_this_computer_only(compose: dict[str, Any], service: str) -> None:
    for port in compose["services"][service].get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("service", SERVICES)
def test_mounted_files_exist_and_are_read_only(compose: dict[str, Any], service: str, repository: Path) -> None:
    mounts = [volume.split(":") for volume in compose["services"][service]["volumes"]]
    files = [mount for mount in mounts if mount[0].startswith(".")]
    assert files
    for name, _inside, mode in files:
        assert (repository / "docker" / name).is_file()
        assert mode == "ro"
    assert {mount[0] for mount in mounts if mount not in files} <= set(compose["volumes"])


def test_images_from_elsewhere_have_a_version(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values() if "build" not in service]
    assert images
    assert all(is_pinned(image) for image in images)


def test_the_node_is_built_from_this_repository(compose: dict[str, Any], repository: Path) -> None:
    build = compose["services"]["node"]["build"]
    context = (repository / "docker" / build["context"]).resolve()
    assert context == repository.resolve()
    assert f"AS {build['target']}\n" in (context / build["dockerfile"]).read_text()


def test_the_gpu_file_changes_the_node_and_nothing_else(repository: Path, compose: dict[str, Any]) -> None:
    override = yaml.safe_load((repository / "docker" / "compose.gpu.yaml").read_text())
    assert list(override) == ["services"]
    assert list(override["services"]) == ["node"]
    build = {**compose["services"]["node"]["build"], **override["services"]["node"]["build"]}
    assert build["target"] == "gpu"


def test_the_node_and_orthanc_find_each_other(
    compose: dict[str, Any], orthanc_json: dict[str, Any], repository: Path
) -> None:
    settings = load_settings(repository / "docker" / "scp_node.toml")
    [destination] = settings.destinations
    assert destination.host == "orthanc"
    assert [destination.ae_title, destination.port] == [orthanc_json["DicomAet"], orthanc_json["DicomPort"]]
    assert orthanc_json["DicomModalities"]["node"] == [settings.node.ae_title, "node", settings.listen.port]
    assert set(compose["services"]) == {"node", "orthanc"}


def test_orthanc_and_nobody_else_may_send_to_the_node(
    compose: dict[str, Any], orthanc_json: dict[str, Any], repository: Path
) -> None:
    settings = load_settings(repository / "docker" / "scp_node.toml")
    peers = {peer.ae_title: ipaddress.ip_network(peer.address) for peer in settings.peers}
    [network] = compose["networks"]["dicom"]["ipam"]["config"]
    assert peers == {orthanc_json["DicomAet"]: ipaddress.ip_network(network["subnet"])}


def test_nobody_acknowledges_the_demonstration_model_for_the_user(repository: Path) -> None:
    settings = load_settings(repository / "docker" / "scp_node.toml")
    assert settings.inference.acknowledge_demonstration is False


def test_the_user_acknowledges_by_taking_two_marks_away(repository: Path, tmp_path: Path) -> None:
    text = (repository / "docker" / "scp_node.toml").read_text()
    for line in ("[inference]", "acknowledge_demonstration = true"):
        assert f"# {line}\n" in text
        text = text.replace(f"# {line}\n", f"{line}\n")
    file = tmp_path / "scp_node.toml"
    file.write_text(text)
    assert load_settings(file).inference.acknowledge_demonstration is True
