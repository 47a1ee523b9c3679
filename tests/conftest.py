import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data sets, `CVLIB_DATA` or `../shared/data` beside the checkout."""
    folder = Path(os.environ.get("CVLIB_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: CVLIB_DATA is not set and {folder.name}/ is absent")
    return folder
