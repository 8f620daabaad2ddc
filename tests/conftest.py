from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of pictures and clips for testing, which is not part of the repository."""
    folder = Path(os.environ.get("VSR_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (folder / "test").is_dir():
        pytest.skip(f"no test data at {folder}; set VSR_DATA to the folder that holds test/ and clips/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _engines_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks that backends prepare and keep are kept for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VSR_ENGINES", str(tmp_path_factory.mktemp("engines")))
        yield
