"""The judgement itself: what names promise, and that everything is judged as it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from watermark.conformance import expectation, judge_files, judge_live, judge_outputs, report, table


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("adobe-20220124-A.jpg", ("absent", "")),
        ("adobe-20220124-I.jpg", ("absent", "")),
        ("adobe-20220124-CACA.jpg", ("valid", "")),
        ("adobe-20220124-CIE-sig-CA.jpg", ("valid", "")),
        ("adobe-20220124-E-sig-CA.jpg", ("invalid", "claimSignature.mismatch")),
        ("adobe-20220124-E-uri-CIE-sig-CA.jpg", ("invalid", "assertion.hashedURI.mismatch")),
        ("truepic-20230212-XCA.jpg", ("invalid", "assertion.dataHash.mismatch")),
    ],
)
def test_a_name_is_a_promise(name: str, promise: tuple[str, str]) -> None:
    assert expectation(name) == promise


@pytest.mark.needs_data
def test_public_files_keep_what_their_names_promise(shared_data: Path) -> None:
    rows = judge_files(sorted((shared_data / "c2pa").glob("*.jpg")))
    assert len(rows) == 17 and all(row.is_as_expected for row in rows)


@pytest.mark.heavy
def test_our_outputs_and_streams_are_judged_alike_by_both(tmp_path: Path) -> None:
    rows = judge_outputs(tmp_path) + judge_live(tmp_path)
    assert all(row.is_as_expected and row.second_agrees for row in rows), rows


@pytest.mark.heavy
def test_the_report_counts(tmp_path: Path) -> None:
    found = report([], tmp_path)
    assert found["num_as_expected"] == found["num_judged"] == 13
    assert "13 of 13 as expected" in table(found)
