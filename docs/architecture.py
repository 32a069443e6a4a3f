"""
Draws the picture of docs/architecture.md from the imports: `python docs/architecture.py`.

An arrow means that the upper room imports the lower one. Arrows that follow from two others are left out.
"""

import re
from pathlib import Path

import grimp
import networkx as nx

ENGINE, COMPONENTS = "haystack_distill", "haystack_integrations.components.distill"
PAGE = Path(__file__).with_name("architecture.md")
PICTURE = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)


def rooms() -> nx.DiGraph:
    """
    The rooms and which imports which; an arrow's `imports` counts the modules that do.

    :returns: A graph without circles.
    """
    modules = grimp.build_graph(ENGINE, COMPONENTS)
    graph = nx.DiGraph()
    for importer in sorted(modules.modules):
        for imported in modules.find_modules_directly_imported_by(importer):
            ends = _room(importer), _room(imported)
            if None not in ends and ends[0] != ends[1]:
                count = graph.get_edge_data(*ends, {"imports": 0})["imports"]
                graph.add_edge(*ends, imports=count + 1)
    return graph


def picture() -> str:
    """The picture as a Mermaid block, which GitHub and mkdocs-material draw."""
    graph = rooms()
    arrows = sorted(nx.transitive_reduction(graph).edges)
    lines = [f"    {upper} --> {lower}" for upper, lower in arrows]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


def _room(module: str) -> str | None:
    if module == ENGINE:
        return None  # the door loads components by their names
    for package, top in ((ENGINE, ""), (COMPONENTS, "components")):
        if module == package or module.startswith(f"{package}."):
            inside = module.removeprefix(package).lstrip(".").split(".")[0]
            return top if top and inside not in {"parts", "stores"} else inside
    return None


if __name__ == "__main__":
    PAGE.write_text(PICTURE.sub(lambda _: picture(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
