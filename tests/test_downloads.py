"""Sets of torchvision's are downloaded once, whoever wants them at the same time, and taken only where they are whole."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssl_demo import data


@pytest.fixture
def imagenette(monkeypatch):
    """A set of ten classes and two sizes, as torchvision has it: whole, as far as it can tell, once its folder is there."""
    pytest.importorskip("ssl_demo.torchvision_ops")
    datasets = pytest.importorskip("torchvision").datasets

    class Imagenette:
        breaks_off = False

        def __init__(self, root, size, download):
            self.folder = Path(root) / size
            if download and not self.folder.exists():
                if not (Path(root) / f"{size}.tgz").exists():
                    self.downloads.append(size)
                    (Path(root) / f"{size}.tgz").write_bytes(b"packed")
                for number in range(3 if self.breaks_off else 10):
                    (self.folder / str(number)).mkdir(parents=True)
                    (self.folder / str(number) / "1.jpeg").write_bytes(bytes([number]))
                    time.sleep(0.005)
                if self.breaks_off:
                    raise ConnectionResetError("gone")
            if not self.folder.exists():
                raise RuntimeError("Dataset not found. You can use download=True to download it.")
            self.classes = sorted(path.name for path in self.folder.iterdir())

    Imagenette.downloads = []
    monkeypatch.setattr(datasets, "Imagenette", Imagenette)
    return Imagenette


def test_a_set_is_downloaded_once_by_all_who_want_it(imagenette, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        sets = list(pool.map(lambda _: data.torchvision_set("Imagenette/size=small", tmp_path)[1], range(4)))
    assert imagenette.downloads == ["small"] and all(len(found.classes) == 10 for found in sets)
    root, large = data.torchvision_set("Imagenette/size=large", tmp_path)  # beside the other size
    assert len(large.classes) == 10
    assert sorted(path.name for path in root.iterdir()) == ["large", "large.tgz", "small", "small.tgz"]
    assert sorted(path.name for path in root.parent.iterdir()) == ["Imagenette", "Imagenette.lock"]


def test_a_download_that_broke_off_is_not_taken_as_whole(imagenette, tmp_path, monkeypatch):
    for number in range(3):  # from before downloads went to a folder of their own
        (tmp_path / "torchvision/Imagenette/small" / str(number)).mkdir(parents=True)
    (tmp_path / "torchvision/Imagenette.part/small").mkdir(parents=True)  # of one that was killed
    monkeypatch.setattr(imagenette, "breaks_off", True)
    with pytest.raises(ValueError, match=r"Imagenette cannot be downloaded \(gone\)"):
        data.torchvision_set("Imagenette/size=small", tmp_path)
    monkeypatch.setattr(imagenette, "breaks_off", False)
    assert len(data.torchvision_set("Imagenette/size=small", tmp_path)[1].classes) == 10
    assert imagenette.downloads == ["small", "small"] and not (tmp_path / "torchvision/Imagenette.part").exists()


def test_what_is_packed_already_is_not_fetched_again(imagenette, tmp_path):
    (tmp_path / "torchvision/Imagenette").mkdir(parents=True)
    (tmp_path / "torchvision/Imagenette/small.tgz").write_bytes(b"brought by hand")
    root, found = data.torchvision_set("Imagenette/size=small", tmp_path)
    assert len(found.classes) == 10 and imagenette.downloads == []
    assert (root / "small.tgz").read_bytes() == b"brought by hand"


def test_processes_wait_for_each_other_to_download(tmp_path):
    pytest.importorskip("fcntl")
    code = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    other = [sys.executable, "-c", code, str(tmp_path / "Set.lock")]
    with data._alone(tmp_path / "Set"):
        assert subprocess.run(other, stderr=subprocess.DEVNULL).returncode != 0
    assert subprocess.run(other).returncode == 0
