"""The first cell of every notebook without a checkout, as on Colab; and again, as after a restart."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from setup_cell import SOURCE  # noqa: E402

RUN = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for path in sys.argv[1:]:
    shell.run_cell(open(path).read()).raise_error()
"""
USE = """
import google.colab, ipywidgets
from swys_utils.browser import GradCAMBrowser
from swys_utils.models import checkpoint_ids, load_checkpoint
names = [name for name in checkpoint_ids() if name.startswith("pneumoniamnist/vit_tiny")]
browser = GradCAMBrowser({"Tiny": load_checkpoint(names[0])[0]}, data.test.head(4), data.info.class_names)
browser.slider.value = 2
print(ipywidgets.__version__, "Image 2 of 4" in browser.status.value)
"""


@pytest.fixture
def bare(tmp_path):
    """Runs cells with the packages of this environment, but without swys_utils, and with Colab's widgets."""
    venv.create(tmp_path / "env", with_pip=False)
    python = next((tmp_path / "env").glob("[bS]*/python*"))
    (packages,) = (tmp_path / "env").rglob("site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files are not read
    (packages / "google" / "colab").mkdir(parents=True)
    (packages / "google" / "colab" / "__init__.py").touch()
    pip = [python, "-m", "pip", "install", "-q", "--no-deps", "--target", packages, "ipywidgets==7.7.1"]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("no package index to take ipywidgets 7.7.1 from")
    (tmp_path / "content").mkdir()
    for name, text in (("run.py", RUN), ("setup.txt", SOURCE.replace("{repository}", "")), ("use.txt", USE)):
        (tmp_path / name).write_text(text)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SWYS", "PYTHON"))}
    kept |= {"HOME": str(tmp_path), "SWYS_PROFILE": "smoke"}

    def run(*names: str, **extra: str) -> subprocess.CompletedProcess:
        command = [python, tmp_path / "run.py", *(tmp_path / name for name in names)]
        return subprocess.run(
            command, cwd=tmp_path / "content", env=kept | extra, capture_output=True, text=True
        )

    return run


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the cell clones the repository")
def test_the_setup_cell_clones_once_and_finds_its_checkpoints_after_a_restart(bare):
    missing = bare("setup.txt")
    assert missing.returncode and "SWYS_REPO_URL" in missing.stderr + missing.stdout
    wrong = bare("setup.txt", SWYS_REPO_URL="file:///nowhere")
    assert wrong.returncode and "pip install" not in wrong.stdout and "git" in wrong.stdout + wrong.stderr
    for extra in ({"SWYS_REPO_URL": f"file://{ROOT}"}, {}):
        found = bare("setup.txt", "use.txt", **extra)
        assert found.returncode == 0, found.stdout + found.stderr
        assert "7.7.1 True" in found.stdout
