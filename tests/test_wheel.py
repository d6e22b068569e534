"""The wheel: everything that the package reads at run time is in it, and found there."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from jaxnmt.config.files import shipped_configs

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {"jaxnmt": "jaxnmt", "configs": "jaxnmt/_configs", "launch": "jaxnmt/_launch"}

FINDS = """
import json, pathlib, jaxnmt
from jaxnmt.cli.verbs import launching
from jaxnmt.config.files import find_config, shipped_configs
from jaxnmt.lab.probes import contrast
from jaxnmt.lab.visualize import record
read = [find_config("quickstart"), record.TEMPLATE / "frame.html", contrast.RULES / "de.toml"]
read += [launching.launcher(name) for name in ("local.sh", "slurm.sbatch", "jobset.yaml", "tpu_vm.sh")]
package = pathlib.Path(jaxnmt.__file__).parent
print(json.dumps([str(package), [path.is_file() and package in path.parents for path in read], list(shipped_configs())]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this source tree, unpacked."""
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    (file,) = builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(file) as packed:
        packed.extractall(folder / "unpacked")
    return folder / "unpacked"


def files(folder):
    """Paths in a folder, but for what Python and programs compile there."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_every_file_of_the_package_its_configs_and_its_launchers_is_in_it(wheel):
    expected = {pathlib.Path(inside) / path for outside, inside in FOLDERS.items() for path in files(ROOT / outside)}
    packed = {path for path in files(wheel) if path.parts[0] == "jaxnmt"}
    assert packed == expected
    named = ["_configs/quickstart.py", "_configs/ablations/heads.py", "_launch/slurm.sbatch", "lab/visualize/template/frame.html"]
    assert {pathlib.Path("jaxnmt") / name for name in [*named, "lab/probes/rules/de.toml"]} <= packed


def test_an_installed_package_finds_them(wheel, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FINDS], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(wheel)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [str(wheel / "jaxnmt"), [True] * 7, list(shipped_configs())]
