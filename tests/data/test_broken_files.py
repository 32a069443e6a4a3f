"""What is broken in a file from outside is said in one sentence that names the file, whatever it is."""

import pytest

from benchmarks.broken_files import READERS, run


@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_read_or_refused_with_a_sentence(name):
    seen = run(READERS[name], 200)
    assert seen["refused"] > 20, "most files were not broken"
