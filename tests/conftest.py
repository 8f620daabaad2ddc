from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Data that is not in the repository: by default from the folder beside the checkout.
_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
if _BESIDE.is_dir():
    os.environ.setdefault("VSR_DATA", str(_BESIDE))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of pictures and clips for testing, which is not part of the repository."""
    folder = Path(os.environ.get("VSR_DATA", ""))
    if not (folder / "test").is_dir():
        pytest.skip("no test data: set VSR_DATA to the folder that holds test/ and clips/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _engines_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks that backends prepare and keep are kept for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VSR_ENGINES", str(tmp_path_factory.mktemp("engines")))
        yield
