"""Two lists of a hybrid joined by reciprocal rank fusion, with weights, and by the weighted sum of the patch."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import haystack

PATCH = Path(__file__).with_name("score-fusion.patch")
SCRIPT = """
from haystack import Document
from haystack.components.joiners import DocumentJoiner

words = [Document(id=key, score=score) for key, score in (("a", 9.0), ("b", 8.9), ("c", 1.0))]
dense = [Document(id=key, score=score) for key, score in (("c", 0.9), ("b", 0.2), ("a", 0.1))]
for mode, weights in (("reciprocal_rank_fusion", None), ("reciprocal_rank_fusion", [0.15, 0.85]),
                      ("relative_score_fusion", [0.15, 0.85])):
    found = DocumentJoiner(mode, weights=weights).run([words, dense])["documents"]
    print(f"{mode}, {weights}:", [(document.id, round(document.score, 3)) for document in found])
"""


def main() -> None:
    """Run the script over a patched copy of Haystack."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(Path(haystack.__file__).parent, Path(folder) / "haystack")
        for command in (["git", "apply", str(PATCH)], [sys.executable, "-c", SCRIPT]):
            subprocess.run(command, cwd=folder, check=True)  # noqa: S603 - nothing of it comes from outside


if __name__ == "__main__":
    main()
