"""The ledger of trials."""

import os

import pytest

from vicinal.studies.ledger import Ledger
from vicinal.training.trial_result import Trial


@pytest.mark.parametrize(
    "name",
    [
        b"a?b=c&d",
        b"50% of it",
        b"%41",
        b"part #2",
        b"{SCHEMA_VERSION}",
        b"a@b:c",
        b"plus+and space",
        "häuser".encode(),
        b"not-utf-8-\xff",
    ],
)
def test_a_ledger_lies_in_its_folder_whatever_the_folder_is_called(name, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = tmp_path / os.fsdecode(name) / "study.db"
    path.parent.mkdir()
    Ledger(path, "study").begin([Trial("erm", 0.0, 0)])
    number, trial = Ledger(path, "study").claim()
    assert (number, trial) == (0, Trial("erm", 0.0, 0))
    assert path.stat().st_size > 0
    (tmp_path / "elsewhere").rmdir()  # empty
    assert list(tmp_path.iterdir()) == [path.parent]
