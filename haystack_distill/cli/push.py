"""`haystack-distill push`: a model for a hub."""

from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say


def push(
    model: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The folder that a command made.")],
    name: Annotated[str, typer.Argument(help="What it is to be called there: organisation/name.")],
) -> dict[str, Any]:
    """
    Put a model on the Hugging Face hub, with its card and its proof; a repository that is made for it is private.

    Examples:
      haystack-distill push models/two-layers my-organisation/two-layers
      haystack-distill push models/pair/query my-organisation/asymmetric-query
    """
    with explained():
        from haystack_distill.serving.hub import push as push_to_hub

        address = push_to_hub(model, name)
    say(f"{model} is on {address}")
    say("Its report and its dev set hold text of your index: look through them before you make it public.")
    return {"address": address}
