"""What training sees is what the node sees, no patient is on two sides, and no bad file stops the rest."""

from __future__ import annotations

import dataclasses
import gzip
import json
import logging
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pandas as pd
import pytest
from pneumonia_model.preprocessing import to_input
from pneumonia_training import cli
from pneumonia_training.films.manifests import ManifestError, fold_of, read_manifest, read_rsna_folder
from pneumonia_training.films.prepare import CHUNK, load_prepared, npy_names, prepare, write_npy
from pneumonia_training.films.problems import Problem, read_findings
from pneumonia_training.films.reading import film_input, read_in_order
from pneumonia_training.films.sampling import Split, SplitRule, refuse_leak, split_by_image, split_by_patient

from tests.model import images
from tests.training.small_films import (
    film,
    prepared_films,
    read_or_die,
    swap_unnoticed,
    write_dicom,
    write_manifest,
    write_rsna_folder,
)
from tests.waiting import wait_until

RULE: Final = SplitRule(test_folds=(0, 1), validation_folds=(2,))


def test_a_dicom_film_and_its_picture_give_the_same_prepared_film(tmp_path: Path) -> None:
    picture = images.picture()
    cv2.imwrite(str(tmp_path / "film.png"), picture)
    write_dicom(tmp_path / "film.dcm", picture)
    inputs = to_input(images.radiograph(picture))
    assert np.array_equal(film_input(tmp_path / "film.png"), inputs)
    assert np.array_equal(film_input(tmp_path / "film.dcm"), inputs)
    pd.DataFrame({"path": ["film.dcm"], "label": [1], "group": ["a"]}).to_csv(tmp_path / "manifest.csv", index=False)
    prepared = prepare(read_manifest(tmp_path / "manifest.csv"), root=tmp_path, cache=tmp_path / "cache")
    assert np.array_equal(prepared.images[0] / np.float32(255), inputs)


def test_prepared_films_are_found_again_with_the_same_digest(tmp_path: Path) -> None:
    prepared = prepared_films(tmp_path, patients=6)
    again = load_prepared(tmp_path / "cache")
    assert again.digest == prepared.digest
    assert np.array_equal(again.images, prepared.images)
    assert list(again.films.columns) == list(prepared.films.columns)


def test_one_other_pixel_is_another_digest(tmp_path: Path) -> None:
    before = prepared_films(tmp_path, patients=6).digest
    picture = cv2.imread(str(tmp_path / "0-0.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    picture[3, 3] ^= 64
    cv2.imwrite(str(tmp_path / "0-0.png"), picture)
    after = prepare(read_manifest(tmp_path / "manifest.csv"), root=tmp_path, cache=tmp_path / "cache").digest
    assert after != before


def test_films_prepared_under_other_preprocessing_are_not_trained_on(tmp_path: Path) -> None:
    prepared_films(tmp_path, patients=6)
    document = json.loads((tmp_path / "cache" / "dataset.json").read_text())
    document["preprocessing"]["version"] += 1
    (tmp_path / "cache" / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(ManifestError, match="preprocessing"):
        load_prepared(tmp_path / "cache")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"path": ["a.png"], "group": ["a"]}, "no column label"),
        ({"path": ["a.png"], "label": [2], "group": ["a"]}, "label"),
        ({"path": ["a.png", "b.png"], "label": [1, 0], "group": ["a", "a"], "fold": [1, 2]}, "more than one fold"),
        ({"path": ["a.png"], "label": [1], "group": ["a"], "fold": ["last"]}, "not a whole number"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(
    tmp_path: Path, table: dict[str, list[object]], complaint: str
) -> None:
    pd.DataFrame(table).to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(ManifestError, match=complaint):
        read_manifest(tmp_path / "manifest.csv")


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "film.jpg").write_bytes(b"no picture")
    with pytest.raises(ManifestError, match=r"film\.jpg"):
        film_input(tmp_path / "film.jpg")


def test_no_patient_is_on_two_sides(tmp_path: Path) -> None:
    films = prepared_films(tmp_path, patients=40).films
    split = split_by_patient(films, RULE)
    sides = [set(films.group.iloc[rows]) for rows in dataclasses.astuple(split)]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


def test_a_split_by_image_shares_patients_and_is_recognised(tmp_path: Path) -> None:
    films = prepared_films(tmp_path, patients=40).films
    with pytest.raises(ManifestError, match="two sides"):
        refuse_leak(films, split_by_image(films, test_share=0.1, seed=0))


def test_one_patient_on_two_sides_is_enough_to_refuse(tmp_path: Path) -> None:
    films = prepared_films(tmp_path, patients=4).films
    first, second, *others = np.arange(len(films))
    with pytest.raises(ManifestError, match="1 groups"):
        refuse_leak(films, Split(train=np.array([first]), validation=np.array(others), test=np.array([second])))


def test_only_films_of_the_natural_mix_are_measured_and_none_of_their_patients_trains(tmp_path: Path) -> None:
    films = prepared_films(tmp_path, patients=40).films
    films["subset"] = np.where(np.arange(len(films)) % 2, "natural", "extra")
    rule = SplitRule(test_folds=(0, 1), validation_folds=(2,), evaluated_subsets=("natural",))
    split = split_by_patient(films, rule)
    assert set(films.subset.iloc[split.test]) == {"natural"}
    assert set(films.fold.iloc[split.train]) == {3, 4, 5, 6, 7, 8, 9}


def test_a_film_without_a_fold_gets_the_one_of_its_patient(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, patients=12)
    pd.read_csv(manifest).drop(columns="fold").to_csv(manifest, index=False)
    films = read_manifest(manifest)
    assert (films.groupby("group").fold.nunique() == 1).all()
    assert films.fold.tolist() == [fold_of(group) for group in films.group]


def test_an_rsna_folder_is_grouped_by_nih_patient(tmp_path: Path) -> None:
    folder = write_rsna_folder(tmp_path / "rsna")
    films, findings = read_rsna_folder(folder, nih_map=folder / "map.csv")
    assert findings == []
    assert films.path.tolist() == [f"stage_2_train_images/{image}.dcm" for image in "abc"]
    assert films.label.tolist() == [1, 0, 0]
    assert films.group.tolist() == ["7", "7", "8"]
    assert films.negative_class.tolist() == ["Lung Opacity", "Normal", "No Lung Opacity / Not Normal"]
    assert films.boxes.tolist() == ["[[10.0, 20.0, 200.0, 300.0], [500.0, 30.0, 210.0, 310.0]]", "", ""]
    assert films.fold.tolist() == [fold_of("7"), fold_of("7"), fold_of("8")]


def test_view_age_and_sex_come_from_the_films_own_headers(tmp_path: Path) -> None:
    folder = write_rsna_folder(tmp_path / "rsna")
    films, _ = read_rsna_folder(folder, nih_map=folder / "map.csv")
    prepared = prepare(films, root=folder, cache=tmp_path / "cache")
    assert prepared.films["view"].tolist() == ["AP", "PA", "PA"]
    assert prepared.films["age"].tolist() == [30, 31, 32]
    assert prepared.films["sex"].tolist() == ["F", "F", "F"]


def test_what_a_manifest_says_of_a_film_goes_before_its_header(tmp_path: Path) -> None:
    write_dicom(tmp_path / "film.dcm", film(1, ill=True), ViewPosition="AP", PatientSex="M")
    (tmp_path / "manifest.csv").write_text("path,label,group,view\nfilm.dcm,1,a,PA\n")
    films = prepare(read_manifest(tmp_path / "manifest.csv"), root=tmp_path, cache=tmp_path / "cache").films
    assert films[["view", "sex"]].to_numpy().tolist() == [["PA", "M"]]


def test_tables_compressed_by_gzip_are_read_as_well(tmp_path: Path) -> None:
    folder = write_rsna_folder(tmp_path / "rsna")
    plain, _ = read_rsna_folder(folder, nih_map=folder / "map.csv")
    for table in folder.glob("*.csv"):
        (folder / f"{table.name}.gz").write_bytes(gzip.compress(table.read_bytes()))
        table.unlink()
    packed, _ = read_rsna_folder(folder, nih_map=folder / "map.csv.gz")
    pd.testing.assert_frame_equal(packed, plain)


@pytest.mark.parametrize("missing", ["stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "map.csv"])
def test_a_missing_table_is_named(tmp_path: Path, missing: str) -> None:
    folder = write_rsna_folder(tmp_path / "rsna")
    (folder / missing).unlink()
    with pytest.raises(ManifestError, match=missing):
        read_rsna_folder(folder, nih_map=folder / "map.csv")


def test_a_missing_folder_of_films_is_named(tmp_path: Path) -> None:
    folder = write_rsna_folder(tmp_path / "rsna")
    (folder / "stage_2_train_images").rename(folder / "elsewhere")
    with pytest.raises(ManifestError, match="no folder stage_2_train_images"):
        read_rsna_folder(folder)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rsna_id\na\n", "no column nih_patient"),
        ("rsna_id,nih_patient\na,7\na,8\n", "two patients"),
        ("rsna_id,nih_patient\nx,7\n", "none of the images"),
    ],
)
def test_a_map_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    folder = write_rsna_folder(tmp_path / "rsna")
    (folder / "map.csv").write_text(text)
    with pytest.raises(ManifestError, match=complaint):
        read_rsna_folder(folder, nih_map=folder / "map.csv")


def test_films_that_share_a_group_or_a_patient_of_the_map_are_one_group(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("rsna_id,nih_patient\ni,7\nj,7\nk,8\n")
    rows = ["1.png,1,a,6,i", "2.png,0,b,2,j", "3.png,0,b,2,", "4.png,0,c,5,k", "5.png,0,,,k"]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,group,fold,rsna_id", *rows]))
    films = read_manifest(tmp_path / "manifest.csv", nih_map=tmp_path / "map.csv")
    assert films.group.tolist() == ["a", "a", "a", "8", "8"]
    assert films.fold.tolist() == [2, 2, 2, min(5, fold_of("8")), min(5, fold_of("8"))]


def test_a_map_needs_image_ids_in_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("rsna_id,nih_patient\ni,7\n")
    with pytest.raises(ManifestError, match="image_id"):
        read_manifest(write_manifest(tmp_path, patients=2), nih_map=tmp_path / "map.csv")


def test_films_whose_patient_nobody_knows_are_split_by_image_with_a_loud_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_rsna_folder(tmp_path / "rsna")
    films, _ = read_rsna_folder(folder)
    assert films.group.tolist() == ["image:a", "image:b", "image:c"]
    prepared = prepare(films, root=folder, cache=tmp_path / "cache")
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "SPLIT BY IMAGE: of 3 of 3 films" in warning.getMessage()
    assert warning.getMessage().count("\n") > 3
    assert prepared.split_unit == "image"
    assert json.loads((tmp_path / "cache" / "dataset.json").read_text())["split_unit"] == "image"


def test_films_with_patients_are_split_by_patient_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert prepared_films(tmp_path, patients=3).split_unit == "patient"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def write_faulty_films(folder: Path) -> Path:
    """Write a good film, and beside it one of every kind that checks name."""
    manifest = write_manifest(folder, patients=4, films_each=1)
    good = film(7, ill=True)
    cv2.imwrite(str(folder / "good.png"), good)
    cv2.imwrite(str(folder / "good.jpg"), good, [cv2.IMWRITE_JPEG_QUALITY, 90])
    for kind in ("png", "jpg"):
        octets = (folder / f"good.{kind}").read_bytes()
        (folder / f"cut.{kind}").write_bytes(octets[: len(octets) * 2 // 3])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.dcm").write_text("no film")
    write_dicom(folder / "headless.dcm", good, Rows=9999)
    (folder / "again.png").write_bytes((folder / "good.png").read_bytes())
    unreadable = ["cut.png", "cut.jpg", "empty.jpg", "text.dcm", "headless.dcm"]
    names = ["gone.png", *unreadable, "good.png", "again.png", "good.jpg"]
    lines = [f"{name},{int(name != 'again.png')},other-{row},{row},,," for row, name in enumerate(names)]
    manifest.write_text(manifest.read_text() + "\n".join(lines) + "\n")
    return manifest


def test_bad_films_are_named_and_the_others_prepared(tmp_path: Path) -> None:
    prepared = prepare(read_manifest(write_faulty_films(tmp_path)), root=tmp_path, cache=tmp_path / "cache")
    found = read_findings(tmp_path / "cache" / "checks.csv")
    assert [(each.path, each.problem) for each in found] == [
        ("gone.png", Problem.MISSING),
        ("cut.png", Problem.UNREADABLE),
        ("cut.jpg", Problem.UNREADABLE),
        ("empty.jpg", Problem.UNREADABLE),
        ("text.dcm", Problem.UNREADABLE),
        ("headless.dcm", Problem.UNREADABLE),
        ("again.png", Problem.DUPLICATE),
        ("good.jpg", Problem.NEAR_DUPLICATE),
        ("again.png", Problem.LABEL_CONFLICT),
    ]
    assert all(each.detail for each in found)
    kept = ["0-0.png", "1-0.png", "2-0.png", "3-0.png", "good.png", "again.png", "good.jpg"]
    assert prepared.films.path.tolist() == kept
    for path, picture in zip(kept, prepared.images, strict=True):
        assert np.array_equal(picture / np.float32(255), film_input(tmp_path / path))


def test_films_that_show_one_picture_are_on_one_side(tmp_path: Path) -> None:
    prepared = prepare(read_manifest(write_faulty_films(tmp_path)), root=tmp_path, cache=tmp_path / "cache")
    same = prepared.films[prepared.films.path.isin(["good.png", "again.png", "good.jpg"])]
    assert set(same.group) == {"other-6"}
    assert set(same.fold) == {6}


def test_a_film_listed_with_both_labels_is_a_conflict(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "film.png"), film(1, ill=True))
    (tmp_path / "manifest.csv").write_text("path,label,group,image_id\nfilm.png,1,a,x\ngone.png,0,a,x\n")
    prepare(read_manifest(tmp_path / "manifest.csv"), root=tmp_path, cache=tmp_path / "cache")
    found = read_findings(tmp_path / "cache" / "checks.csv")
    assert [each.problem for each in found] == [Problem.MISSING, Problem.LABEL_CONFLICT]


def test_a_manifest_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,label,group\ngone.png,1,a\n")
    with pytest.raises(ManifestError, match="not one film") as refusal:
        prepare(read_manifest(tmp_path / "manifest.csv"), root=tmp_path, cache=tmp_path / "cache")
    (table,) = (tmp_path / "cache").rglob("checks.csv")
    assert str(table) in str(refusal.value)
    assert [each.path for each in read_findings(table)] == ["gone.png"]


def test_the_files_are_the_same_however_many_processes_read(tmp_path: Path) -> None:
    films = read_manifest(write_faulty_films(tmp_path))
    alone = prepare(films, root=tmp_path, cache=tmp_path / "alone")
    together = prepare(films, root=tmp_path, cache=tmp_path / "together", jobs=2)
    assert together.digest == alone.digest
    for name in ("images.npy", "films.csv", "checks.csv", "dataset.json"):
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_a_film_that_ends_the_process_of_its_decoder_is_the_only_one_lost(tmp_path: Path) -> None:
    names = ["1.png", "deadly.png", "2.png", "3.png", "4.png"]
    for seed, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), film(seed, ill=False))
    chunks = [[tmp_path / name for name in chunk] for chunk in (names[:3], names[3:])]
    films = [film for chunk in read_in_order(chunks, jobs=2, read=read_or_die) for film in chunk]
    assert [each.problem for each, _ in films] == ["", "unreadable", "", "", ""]
    assert [picture is not None for _, picture in films] == [True, False, True, True, True]


HALTED_AFTER_ONE_CHUNK: Final = """
import multiprocessing, signal, sys
from pathlib import Path
from pneumonia_training.films.manifests import read_manifest
from pneumonia_training.films.prepare import CHUNK, prepare

def halt(done):
    if done >= CHUNK:
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        signal.pause()

manifest, cache = map(Path, sys.argv[1:])
prepare(read_manifest(manifest), root=manifest.parent, cache=cache, jobs=2, progress=halt)
"""


def has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def kill_in_the_middle(manifest: Path, cache: Path) -> list[int]:
    """Kill a preparation after its first chunk; return the processes that read for it."""
    command = [sys.executable, "-c", HALTED_AFTER_ONE_CHUNK, str(manifest), str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        readers = [int(number) for number in process.stdout.readline().split()]
        process.kill()
        assert process.wait() == -signal.SIGKILL
    return readers


def test_a_killed_preparation_goes_on_where_it_was(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, patients=50)
    films = read_manifest(manifest)
    whole = prepare(films, root=tmp_path, cache=tmp_path / "undisturbed").digest
    cache = tmp_path / "cache"
    readers = kill_in_the_middle(manifest, cache)
    wait_until(lambda: all(map(has_ended, readers)), what="reading processes end with their parent")
    with pytest.raises(ManifestError, match="no prepared films"):
        load_prepared(cache)
    (partial,) = cache.glob("partial-*")
    for name in ("films.jsonl", "images.npy"):  # as if it had been killed while it wrote the next film
        with (partial / name).open("ab") as file:
            file.write(b"{half a film")
    for path in films.path[:CHUNK]:  # read again, they would be unreadable
        swap_unnoticed(tmp_path / path)
    done: list[int] = []
    assert prepare(films, root=tmp_path, cache=cache, jobs=2, progress=done.append).digest == whole
    assert done == [CHUNK, 2 * CHUNK, 3 * CHUNK, 100]
    assert read_findings(cache / "checks.csv") == []
    assert sorted(path.name for path in cache.iterdir()) == ["checks.csv", "dataset.json", "films.csv", "images.npy"]


def test_another_film_makes_a_killed_preparation_start_anew(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, patients=20)
    kill_in_the_middle(manifest, tmp_path / "cache")
    cv2.imwrite(str(tmp_path / "0-0.png"), film(999, ill=True))
    done: list[int] = []
    prepared = prepare(read_manifest(manifest), root=tmp_path, cache=tmp_path / "cache", progress=done.append)
    assert done == [0, CHUNK, 40]
    assert np.array_equal(prepared.images[0] / np.float32(255), film_input(tmp_path / "0-0.png"))


def test_pictures_that_are_gone_are_not_taken_for_done(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, patients=20)
    kill_in_the_middle(manifest, tmp_path / "cache")
    (partial,) = (tmp_path / "cache").glob("partial-*")
    (partial / "images.npy").unlink()
    done: list[int] = []
    prepare(read_manifest(manifest), root=tmp_path, cache=tmp_path / "cache", progress=done.append)
    assert done == [0, CHUNK, 40]


def test_prepared_films_are_not_prepared_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = prepared_films(tmp_path, patients=3).digest
    swap_unnoticed(tmp_path / "0-0.png")
    caplog.set_level(logging.INFO)
    again = prepare(read_manifest(tmp_path / "manifest.csv"), root=tmp_path, cache=tmp_path / "cache")
    assert again.digest == before
    assert "prepared already" in caplog.text


def test_two_processes_do_not_prepare_one_cache(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, patients=3)
    films, refused = read_manifest(manifest), []

    def again(_: int) -> None:
        with pytest.raises(ManifestError, match="another process") as refusal:
            prepare(films, root=tmp_path, cache=tmp_path / "cache")
        refused.append(refusal)

    prepare(films, root=tmp_path, cache=tmp_path / "cache", progress=again)
    assert refused


def test_the_films_need_not_fit_into_memory(tmp_path: Path) -> None:
    films = read_manifest(write_manifest(tmp_path, patients=800, films_each=1))
    tracemalloc.start()
    prepared = prepare(films, root=tmp_path, cache=tmp_path / "cache")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert prepared.images.nbytes > 40e6
    assert peak < 10e6


def test_films_are_written_one_by_one_as_the_network_takes_them(tmp_path: Path) -> None:
    prepared = prepared_films(tmp_path, patients=2, films_each=1)
    prepared.films["image_id"] = ["007", ""]
    write_npy(prepared, tmp_path / "npy")
    assert sorted(path.name for path in (tmp_path / "npy").iterdir()) == ["007.npy", "1-0.npy"]
    inputs = np.load(tmp_path / "npy" / "007.npy")
    assert inputs.dtype == np.float32
    assert np.array_equal(inputs, film_input(tmp_path / "0-0.png"))


@pytest.mark.parametrize("ids", [["a", "a"], ["a", "../b"]])
def test_films_that_cannot_each_have_a_file_are_refused(ids: list[str]) -> None:
    with pytest.raises(ManifestError, match="no file for each film"):
        npy_names(pd.DataFrame({"image_id": ids, "path": ["1.png", "2.png"]}))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run the command line in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["pneumonia-train", "prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command_prepares_a_challenge_quietly_and_sums_up_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_rsna_folder(tmp_path / "rsna")
    write_dicom(folder / "stage_2_train_images" / "stray.dcm", film(9, ill=False))
    (folder / "stage_2_train_images" / "b.dcm").unlink()
    options = (tmp_path / "cache", "--rsna", folder, "--nih-map", folder / "map.csv", "--jobs", "1")
    assert command(monkeypatch, *options, "--npy", tmp_path / "npy") == 0
    output = capsys.readouterr()
    assert "2 films, sha256:" in output.out
    assert "checks.csv: 1 missing, 1 file without row" in output.out
    assert output.err == ""
    assert sorted(path.name for path in (tmp_path / "npy").iterdir()) == ["a.npy", "c.npy"]
    assert command(monkeypatch, *options, "--strict") == 1
    assert "2 findings" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes standard error for a terminal
    monkeypatch.setenv("TERM", "xterm")
    assert (
        command(monkeypatch, tmp_path / "cache", "--manifest", write_manifest(tmp_path, patients=2), "--jobs", "1") == 0
    )
    assert "4/4" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)


def test_strict_is_content_where_nothing_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_manifest(tmp_path, patients=2)
    assert command(monkeypatch, tmp_path / "cache", "--manifest", manifest, "--jobs", "1", "--strict") == 0


def test_what_the_user_can_mend_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, tmp_path / "cache", "--manifest", tmp_path / "none.csv") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_either_a_manifest_or_a_challenge_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, tmp_path / "cache") == 2
    assert command(monkeypatch, tmp_path / "cache", "--rsna", tmp_path, "--manifest", tmp_path / "m.csv") == 2


def test_no_patient_of_the_whole_challenge_is_in_two_folds_but_a_split_by_image_shares_most(
    tmp_path: Path, shared_data: Path
) -> None:
    for table in ("stage_2_train_labels.csv.gz", "stage_2_detailed_class_info.csv.gz"):
        (tmp_path / table).symlink_to(shared_data / "meta" / table)
    (tmp_path / "stage_2_train_images").mkdir()
    films, findings = read_rsna_folder(tmp_path, nih_map=shared_data / "meta" / "rsna_to_nih.csv.gz")
    assert findings == []
    assert len(films) == 26_684
    of_patient = pd.read_csv(shared_data / "meta" / "rsna_to_nih.csv.gz", dtype=str).set_index("rsna_id")["nih_patient"]
    patients = films.image_id.map(of_patient)
    assert patients.nunique() == 11_439
    assert (films.groupby(patients).fold.nunique() == 1).all()
    sizes = films.fold.value_counts(normalize=True)
    assert len(sizes) == 10
    assert sizes.between(0.09, 0.11).all()

    by_image = split_by_image(films, test_share=0.1, seed=0)
    leaked = patients.iloc[by_image.test].isin(patients.iloc[by_image.train]).mean()
    assert 0.68 < leaked < 0.74


def test_the_real_manifest_has_no_patient_in_two_folds(shared_data: Path) -> None:
    films = read_manifest(shared_data / "train" / "rsna_manifest.csv")
    rule = SplitRule(test_folds=(0, 1, 2), validation_folds=(3, 4), evaluated_subsets=("rsna224",))
    split = split_by_patient(films, rule)
    assert len(split.test) > 300
    assert len(set(films.image_id.iloc[split.test]) & set(films.image_id.iloc[split.train])) == 0
