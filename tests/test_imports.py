"""Importing the library is cheap: what a course reader does not use is not loaded."""

import subprocess
import sys

import pytest

BACKENDS = {"tensorflow", "jax", "torch", "keras"}
EXTRAS = {"papermill", "nbval", "jupyterlab", "snakemake", "yaml", "keras_cv", "keras_hub", "cv2"}


@pytest.mark.parametrize(
    "module, absent", [("cvlib", BACKENDS | EXTRAS), ("cvlib.data", {"tensorflow"} | EXTRAS)]
)
def test_importing_loads_no_more_than_it_needs(module, absent):
    code = f"import sys, {module}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert absent.isdisjoint(loaded)
