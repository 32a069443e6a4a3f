"""Workers on the machines of a cluster: here two nodes on one machine, which RAY_ADDRESS names."""

import sys

import pytest

from haystack_distill.files.bulk import bulk

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")


@pytest.fixture
def two_nodes(monkeypatch):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield
    cluster.shutdown()


@pytest.mark.skipif(sys.platform == "win32", reason="Ray has clusters on Linux and macOS alone")
@pytest.mark.usefixtures("two_nodes")
def test_both_nodes_of_a_cluster_work():
    def make():
        import time

        node = ray.get_runtime_context().get_node_id()

        def where(number):
            time.sleep(0.3)
            yield number, node

        return where

    found = list(bulk(range(12), make, 2))
    assert [number for number, _ in found] == list(range(12))
    assert len({node for _, node in found}) == 2
    assert not ray.is_initialized(), "what was connected for the work is let go"
