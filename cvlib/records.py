"""What a chapter measured, with all that is needed to trust it and to measure it again.

`record` writes one JSON file per run; the tables and the claims are derived from these files only.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

IDENTITY = (
    *("system", "settings", "chapter", "preset", "data", "split", "seed"),
    *("backend", "device", "precision"),
)
# Of what the tables read of a record, beside its numbers.
KINDS = {
    "system": str,
    "data": str,
    "settings": dict,
    "milliseconds": dict,
    "peak_memory_mib": dict,
}


def record(
    system,
    metrics,
    data,
    split=None,
    settings=None,
    model=None,
    resolution=None,
    per_image=None,
    milliseconds=None,
    duration=None,
    chapter=None,
    preset=None,
    seed=None,
):
    """Write what one run measured to a JSON file of its own.

    The file lies in the folder that the environment variable `CVLIB_RECORDS` names, `records`
    unless set. Its name is a hash of what identifies the run (`IDENTITY`), so that measuring the
    same thing again replaces the file. Backend, versions, device, driver, memory, commit and
    command are found out here. No absolute path enters the record.

    Args:
        system: name of what was measured: `"Localizer"`, `"constant box"`.
        metrics: dict from a metric's name (`box_iou`, `mAP@0.5`, ...) to a finite number.
        data: the `cvlib.data.Dataset` that was measured on, or its name.
        split: name of the split; a `Dataset` knows its own.
        settings: dict of what sets this variant of the system apart: `{"trunk": "frozen"}`.
        model: Keras model, for the number of its parameters and its precision.
        resolution: (height, width) of the images that the system sees.
        per_image: dict from a metric's name to its values on the images in order, for the
            bootstrap over images. Stored with four decimals.
        milliseconds: dict from a stage's name, `"graph"` for the whole, to its times after warm-up.
        duration: seconds the run took.
        chapter: `"02"`; by default what `CVLIB_CHAPTER` says, or the name of the open notebook.
        preset: by default the notebook's variable of this name.
        seed: by default the notebook's variable of this name.

    Raises:
        ValueError: a metric is not a finite number, or `per_image` lists are not of finite numbers
            or differ in length.
    """
    digest = None
    if not isinstance(data, str):
        data, split, digest = data.name, split or data.split, data.digest
    keras = sys.modules.get("keras")
    backend = keras.backend.backend() if keras else None
    accelerator, device_bytes = _accelerator(backend)
    commit, dirty = checkout()
    content = {
        "system": system,
        "settings": settings or {},
        "chapter": _chapter() if chapter is None else chapter,
        "preset": _notebook_variable("preset") if preset is None else preset,
        "data": data,
        "data_digest": digest,
        "split": split,
        "seed": _notebook_variable("seed") if seed is None else seed,
        "metrics": _metrics(metrics),
        "milliseconds": {
            stage: {"p50": _percentile(times, 50), "p90": _percentile(times, 90), "n": len(times)}
            for stage, times in (milliseconds or {}).items()
        },
        "parameters": model.count_params() if model else None,
        "peak_memory_mib": {
            "host": _peak_host_mib(),
            "device": device_bytes and device_bytes >> 20,
        },
        "backend": backend,
        "versions": _versions(backend),
        "device": accelerator or _processor(),
        "cores": os.cpu_count(),
        "driver": _driver() if accelerator else None,
        "precision": _precision(keras, model),
        "resolution": resolution,
        "commit": commit,
        "dirty": dirty,
        "command": os.environ.get("CVLIB_COMMAND") or _command(),
        "duration": duration,
        "per_image": _per_image(per_image or {}),
    }
    content = _plain(content)
    identity = json.dumps([content[key] for key in IDENTITY], sort_keys=True)
    words = [content[key] for key in ("chapter", "system", "preset", "data", "seed")]
    words.append(hashlib.sha256(identity.encode()).hexdigest()[:12])
    name = "-".join(re.sub(r"\W+", "_", str(word)) for word in words if word is not None)
    folder = Path(os.environ.get("CVLIB_RECORDS", "records"))
    remove_leftovers(folder)
    write_atomically(folder / f"{name}.json", as_text(content))


def _command():
    """What was typed; of a module run by `-m`, `sys.argv` holds the file alone."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", module.name.removesuffix(".__main__")] if module else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


def as_text(content):
    """The file's text of a record."""
    # A line for each field: a pretty printer would give each image's value a line of its own.
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load_records(folder):
    """The records in `folder`, dicts in the order of their file names.

    Raises:
        ValueError: the folder does not exist, or one of its .json files is not a whole record, or
            not of finite numbers.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: the folder of records does not exist.")
    return [_load(path) for path in sorted(folder.glob("*.json"))]


def write_atomically(path, content, replace=True):
    """Write `content`, a text or bytes, so that a reader finds the old file or the new, whole.

    Raises:
        FileExistsError: `replace` is False and there is a file, of another process perhaps.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner reads.
        if replace:
            os.replace(temporary, path)
        else:
            _move_to_new(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def keep_settings(folder, settings, things):
    """Says in the folder's `settings.json` what `settings`, a dict, made the `things` there.

    Raises:
        ValueError: what is there was made with others.
    """
    path = Path(folder) / "settings.json"
    remove_leftovers(folder)
    if not path.exists():
        with contextlib.suppress(FileExistsError):  # Another process was faster.
            write_atomically(path, json.dumps(settings), replace=False)
    before, now = json.loads(path.read_text("utf-8")), json.loads(json.dumps(settings))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if keys:
        before, now = (json.dumps({key: known.get(key) for key in keys}) for known in (before, now))
        raise ValueError(
            f"{folder}: the {things} there were made with {before}, not with {now}: "
            "name another folder."
        )


def _move_to_new(temporary, path):
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # A file system without links: of two who start at once, the second wins.
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def remove_leftovers(folder, pattern=".*.tmp"):
    """Remove what writers into `folder` left when they were killed, more than a minute ago."""
    for path in Path(folder).glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # Another process was faster.
            if time.time() - path.stat().st_mtime > 60:
                path.unlink()


@functools.cache
def checkout():
    """Commit of the checkout that this file belongs to and whether its code differs, or None."""
    git = ("git", "-C", str(Path(__file__).resolve().parent))
    if not _output(*git, "ls-files", "--error-unmatch", Path(__file__).name):
        return None, None
    changes = _output(*git, "status", "--porcelain", "--", ":(top)", ":(top,exclude)results")
    return _output(*git, "rev-parse", "HEAD"), bool(changes)


def _load(path):
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: the record is not valid JSON.") from None
    if not isinstance(content, dict) or not {*IDENTITY, "metrics", "per_image"} <= content.keys():
        raise ValueError(f"{path}: the file is not a record.")
    for key, kind in KINDS.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{path}: the record's {key!r} is no {kind.__name__}.")
    try:
        _metrics(content["metrics"])
        _per_image(content["per_image"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return content


def _metrics(values):
    if not isinstance(values, dict):
        raise ValueError(f"Metrics are a dict from names to numbers, not {values!r}.")
    return {name: _finite(name, value) for name, value in values.items()}


def _finite(name, value):
    try:
        if isinstance(value, str) or np.ndim(value):  # float would take "0.5" and, of NumPy, [0.5].
            raise TypeError
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"The metric {name!r} is {value!r}, which is not a number.") from None
    if not math.isfinite(number):
        raise ValueError(f"The metric {name!r} is {number}, which no record holds.")
    return number


def _per_image(values):
    try:
        values = {name: np.round(np.asarray(v, float), 4) for name, v in values.items()}
        if any(array.ndim != 1 for array in values.values()):
            raise ValueError
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise ValueError("The per-image values are not a dict of lists of numbers.") from None
    if len({array.shape for array in values.values()}) > 1:
        raise ValueError(f"The per-image values of {', '.join(values)} differ in length.")
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise ValueError(f"The per-image values of {name!r} are not all finite.")
    # Whole numbers (right or wrong) take two bytes instead of four.
    return {
        name: [int(v) if v.is_integer() else v for v in array.tolist()]
        for name, array in values.items()
    }


def _plain(value):
    """`value` in JSON's own types, its texts without the folders of absolute paths."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, str | os.PathLike):
        return re.sub(r"(?<![\w.])/(?:[^/\s]+/)+", "", os.fspath(value))
    return value


def _percentile(times, q):
    return round(float(np.percentile(times, q)), 4)


def _notebook_variable(name):
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell.user_ns.get(name) if shell else None


def _chapter():
    # Jupyter names the open notebook in JPY_SESSION_NAME.
    notebook = Path(os.environ.get("JPY_SESSION_NAME", "")).stem
    return os.environ.get("CVLIB_CHAPTER") or notebook.partition("_")[0] or None


def _versions(backend):
    # Not by import: `benchmarks.freshness` would take a new version for new code of every chapter.
    ours = {"python": platform.python_version(), "cvlib": sys.modules["cvlib"].__version__}
    names = ["numpy", *(["keras", backend] if backend else [])]
    return ours | {name: importlib.metadata.version(name) for name in names}


def _precision(keras, model):
    policy = model.dtype_policy if model else keras and keras.config.dtype_policy()
    return policy.name if policy else None


def _accelerator(backend):
    """Name of the accelerator that `backend` computes on and its peak of bytes, or two None."""
    if backend == "tensorflow":
        config = sys.modules["tensorflow"].config
        if gpus := config.list_physical_devices("GPU"):
            name = config.experimental.get_device_details(gpus[0])["device_name"]
            return name, config.experimental.get_memory_info("GPU:0")["peak"]
    elif backend == "jax":
        device = sys.modules["jax"].devices()[0]
        if device.platform != "cpu":
            return device.device_kind, device.memory_stats()["peak_bytes_in_use"]
    elif backend == "torch":
        cuda = sys.modules["torch"].cuda
        if cuda.is_available():
            return cuda.get_device_name(0), cuda.max_memory_allocated()
    return None, None


def _peak_host_mib():
    try:
        import resource
    except ImportError:  # Windows has no such module.
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)


@functools.cache
def _processor():
    if sys.platform == "linux":
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1]
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor() or platform.machine()


@functools.cache
def _driver():
    found = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found and found.splitlines()[0]


def _output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
