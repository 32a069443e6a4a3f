# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""A result folder: what is in it, and that it is what was measured."""

from pathlib import Path

from sentence_transformers import SentenceTransformer


def check_saved(folder: Path, student: SentenceTransformer, texts: list[str]) -> None:
    """
    Make sure that what is loaded is what was measured: some architectures rebuild layers by their number.

    :param folder: Where the student was saved.
    :param student: The student.
    :param texts: A few texts.
    :raises ValueError: If its vectors differ.
    """
    loaded = SentenceTransformer(str(folder), device=str(student.device), local_files_only=True)
    expected = student.encode(texts)
    difference = float(abs(loaded.encode(texts) - expected).max() / abs(expected).max())
    if difference > 1e-3:
        msg = (
            f"The student can't be saved faithfully: loaded again, its vectors differ by {difference:.1%}. If layers "
            "were cut, this architecture can't keep these: choose others with `keep`."
        )
        raise ValueError(msg)
