"""Importing the library is cheap: what a course reader does not use is not loaded."""

import os
import subprocess
import sys

import pytest

import cvlib

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


def test_a_wrong_backend_is_named_at_once():
    command = [sys.executable, "-c", "import cvlib"]
    environment = os.environ | {"KERAS_BACKEND": "caffe"}
    failed = subprocess.run(command, capture_output=True, text=True, env=environment)
    sentence = "KERAS_BACKEND is 'caffe': it must be one of tensorflow, jax, torch."
    assert failed.stderr.strip().endswith(f"ValueError: {sentence}")


def test_an_absent_backend_is_named_with_its_cure(monkeypatch):
    monkeypatch.setattr(cvlib, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="'torch', which is not installed: pip install torch"):
        cvlib.check_backend("torch")
