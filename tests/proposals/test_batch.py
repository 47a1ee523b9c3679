import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from cvlib import records
from cvlib.data import load
from cvlib.proposals import EdgeBoxes, RandomBoxes, SelectiveSearch, SlidingWindows, batch, propose


def same(a, b):
    return all(
        np.array_equal(x.boxes, y.boxes)
        and np.array_equal(x.scores, y.scores)
        and x.masks == y.masks
        for x, y in zip(a, b, strict=True)
    )


@dataclass(frozen=True)
class Counted:
    """Selective search that counts its calls, or fails at one."""

    fail_at: int | None = None
    calls = []

    def __call__(self, image):
        self.calls.append(1)
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        return SelectiveSearch("single", masks=True)(image)


@pytest.fixture(autouse=True)
def _no_calls():
    Counted.calls.clear()


def test_a_dataset_and_its_images_give_the_same_in_order():
    dataset = load("scenes", "test")[:4]
    method = SelectiveSearch("single")
    expected = [method(sample["image"]) for sample in dataset]
    assert same(propose(dataset, method, workers=1), expected)
    assert same(propose([s["image"] for s in dataset], method, workers=1), expected)
    assert propose([], method) == []


def test_processes_give_what_one_gives(capfd):
    dataset = load("scenes", "test")[:11]
    method = SelectiveSearch("single", masks=True)
    one = propose(dataset, method, workers=1)
    two = propose(dataset, method, workers=2, progress=True)
    assert same(one, two) and [p.masks for p in one] == [p.masks for p in two]
    assert "11 of 11 images" in capfd.readouterr().err


def test_a_fault_in_a_process_arrives_here():
    with pytest.raises(ValueError, match="proposals are made for uint8"):
        propose([np.zeros((3, 4))] * 2, SelectiveSearch(), workers=2)


STOPPED = """
import os, signal, sys, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from cvlib.proposals import RandomBoxes, propose

@dataclass(frozen=True)
class Meeting:  # until both processes have begun
    folder: Path

    def __call__(self, image):
        (self.folder / str(os.getpid())).touch()
        while len(list(self.folder.iterdir())) < 2:
            time.sleep(0.01)
        return RandomBoxes()(image)

if __name__ == "__main__":
    propose([np.zeros((8, 8, 3), "uint8")] * 2, Meeting(Path(sys.argv[1])), workers=2)
    try:
        STOP
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted once")
"""


def stopped(folder, how):
    """What a script and its processes print, once all have ended, when it is stopped."""
    (folder / "script.py").write_text(STOPPED.replace("STOP", how))
    (folder / "met").mkdir()
    done = subprocess.run(
        [sys.executable, folder / "script.py", folder / "met"],
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout, done.stderr


def test_an_interruption_is_no_fault_of_the_processes(tmp_path):
    """As when a notebook's kernel, or a program in a terminal, is stopped."""
    expected = ("interrupted once\n", "")
    assert stopped(tmp_path, "os.killpg(0, signal.SIGINT)") == expected


def test_processes_end_with_the_one_that_is_killed(tmp_path):
    # Python removes what the killed one has left, and says so: the second text is not empty.
    assert stopped(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")[0] == ""


@pytest.mark.parametrize("masks", [False, True])
def test_the_cache_gives_back_what_it_got(tmp_path, masks):
    dataset = load("scenes", "test")[:3]
    method = SelectiveSearch("single", masks=masks)
    first = propose(dataset, method, tmp_path / "cache", workers=1)
    again = propose(dataset, method, tmp_path / "cache", workers=1)
    assert same(first, again)
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 3


def test_what_is_cached_is_not_computed_again(tmp_path):
    dataset = load("scenes", "test")[:3]
    propose(dataset, Counted(), tmp_path, workers=1)
    propose(dataset, Counted(), tmp_path, workers=1)
    assert len(Counted.calls) == 3
    propose(load("scenes", "test")[2:4], Counted(), tmp_path, workers=1)
    assert len(Counted.calls) == 4


def test_the_environment_names_a_folder_for_all_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("CVLIB_PROPOSALS", str(tmp_path))
    dataset = load("scenes", "test")[:2]
    propose(dataset, SelectiveSearch("single"), workers=1)
    first = propose(dataset, Counted(), workers=1)
    assert len(list(tmp_path.glob("*/*.npz"))) == 4
    assert same(first, propose(dataset, Counted(), workers=1)) and len(Counted.calls) == 2
    (tmp_path / "file").touch()
    monkeypatch.setenv("CVLIB_PROPOSALS", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="file is not a folder"):
        propose(dataset, Counted(), workers=1)


def test_no_proposals_and_empty_masks_are_cached(tmp_path):
    grey = np.full((1, 1, 3), 9, np.uint8)
    for method in (SelectiveSearch(masks=True), SlidingWindows(), EdgeBoxes()):
        folder = tmp_path / type(method).__name__
        for _ in range(2):
            assert same(propose([grey], method, folder, workers=1), [method(grey)])


def test_a_cache_of_other_settings_or_another_version_is_refused(tmp_path, monkeypatch):
    dataset = load("scenes", "test")[:1]
    propose(dataset, SelectiveSearch("single"), tmp_path, workers=1)
    for method in (SelectiveSearch("single", seed=1), SelectiveSearch("fast"), RandomBoxes()):
        with pytest.raises(ValueError, match="name another folder"):
            propose(dataset, method, tmp_path, workers=1)
    version = batch.VERSION
    monkeypatch.setattr(batch, "VERSION", version + 1)
    with pytest.raises(ValueError, match=f'{{"version": {version}}}.*name another folder'):
        propose(dataset, SelectiveSearch("single"), tmp_path, workers=1)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    dataset = load("scenes", "test")[:4]
    method = Counted(fail_at=3)
    with pytest.raises(KeyboardInterrupt):
        propose(dataset, method, tmp_path, workers=1)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    found = propose(dataset, method, tmp_path, workers=1)
    assert len(Counted.calls) == 5
    assert same(found, [SelectiveSearch("single", masks=True)(s["image"]) for s in dataset])


def test_a_process_killed_while_it_writes_leaves_no_part(tmp_path):
    code = f"""
import os
import numpy as np
from cvlib.proposals import RandomBoxes, propose
os.replace = lambda *paths: os._exit(9)
propose([np.zeros((9, 9, 3), np.uint8)], RandomBoxes(), {str(tmp_path)!r}, workers=1)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    image = np.zeros((9, 9, 3), np.uint8)
    assert not list(tmp_path.glob("*.npz"))
    (leftover,) = tmp_path.glob(".*.tmp")
    os.utime(leftover, (0, 0))
    found = propose([image], RandomBoxes(), tmp_path, workers=1)
    assert same(found, [RandomBoxes()(image)])
    assert not list(tmp_path.glob(".*.tmp"))


def test_of_two_who_start_a_cache_at_once_one_is_refused(tmp_path, monkeypatch):
    write = records.write_atomically

    def late(path, content, **options):
        monkeypatch.setattr(records, "write_atomically", write)
        batch.Cache(tmp_path, RandomBoxes(seed=1))
        write(path, content, **options)

    monkeypatch.setattr(records, "write_atomically", late)
    with pytest.raises(ValueError, match='"seed": 1.*name another folder'):
        batch.Cache(tmp_path, RandomBoxes(seed=2))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", None])
def test_a_damaged_file_is_named(tmp_path, content):
    dataset = load("scenes", "test")[:1]
    propose(dataset, RandomBoxes(), tmp_path, workers=1)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(ValueError, match=rf"{path.name}: the proposals are damaged"):
        propose(dataset, RandomBoxes(), tmp_path, workers=1)


@pytest.mark.parametrize(
    "key, change",
    [
        ("boxes", lambda a: a.reshape(-1)),
        ("boxes", lambda a: a.astype("float64")),
        ("boxes", lambda a: a.view("int32")),
        ("boxes", lambda a: a + 1),
        ("scores", lambda a: a[:-1]),
        ("masked", lambda a: ~a),
        ("ends", lambda a: a[:-1]),
        ("runs", lambda a: a[::-1]),
        ("checksum", lambda a: a.reshape(1)),
    ],
)
def test_arrays_that_were_changed_are_refused(tmp_path, key, change):
    dataset, method = load("scenes", "test")[:1], SelectiveSearch("single", masks=True)
    propose(dataset, method, tmp_path, workers=1)
    (path,) = tmp_path.glob("*.npz")
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {key: change(arrays[key])})
    with pytest.raises(ValueError, match=rf"{path.name}: the proposals are damaged"):
        propose(dataset, method, tmp_path, workers=1)


def test_the_file_of_another_image_is_refused(tmp_path):
    dataset = load("scenes", "test")[:2]
    propose(dataset, RandomBoxes(), tmp_path, workers=1)
    one, other = tmp_path.glob("*.npz")
    one.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="the proposals are damaged"):
        propose(dataset, RandomBoxes(), tmp_path, workers=1)


def test_images_of_equal_bytes_but_other_shapes_differ(tmp_path):
    images = [np.zeros((4, 9, 3), np.uint8), np.zeros((9, 4, 3), np.uint8)]
    found = propose(images, SlidingWindows(smallest=2), tmp_path, workers=1)
    again = propose(images, SlidingWindows(smallest=2), tmp_path, workers=1)
    assert same(found, again) and not same(found[:1], found[1:])
