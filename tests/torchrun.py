"""Two processes on the CPU, which share the batches of one."""

import sys

import numpy as np

TWO_PROCESSES = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def assert_same_weights(one, two, rtol=1e-2, atol=1e-3):
    """A key's bias adds the same to all scores of a query: its gradient is mere rounding, which Adam scales up."""
    assert one.keys() == two.keys()
    for name in (name for name in one if not name.endswith("key.bias")):
        np.testing.assert_allclose(one[name], two[name], rtol=rtol, atol=atol, err_msg=name)
