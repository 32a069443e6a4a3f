"""Models that are named as on the Hugging Face hub, as folders."""

from pathlib import Path

OTHER_RUNTIMES = ["onnx/*", "openvino/*", "coreml/*", "*.h5", "*.msgpack", "*.ot", "*.gguf"]
"""What is beside the weights of many models and would be downloaded for nothing."""


def local_folder(model: str, revision: str | None = None, token: str | None = None) -> str:
    """
    Find the folder of a model; one that is not on this machine is downloaded, as sentence-transformers would.

    What begins with a folder of this machine is a path and never asked for: a mistyped one would be somebody's model.

    :param revision: The branch, tag or commit of the hub's repository; None takes its main branch.
    :param token: For a private repository.
    :raises FileNotFoundError: If there is no such folder, and the hub has no such model or can't be reached.
    """
    place = Path(model)
    if place.exists():
        return model
    if place.is_absolute() or len(place.parts) > 2 or (len(place.parts) == 2 and place.parent.is_dir()):
        msg = f"The encoder {model} is missing: make it with `haystack-distill align`, or correct the path."
        raise FileNotFoundError(msg)
    from huggingface_hub import snapshot_download

    name = model if "/" in model else f"sentence-transformers/{model}"
    try:
        return str(snapshot_download(name, revision=revision, token=token, ignore_patterns=OTHER_RUNTIMES))
    except (OSError, ValueError) as error:  # not there, not to be reached, or no name that a model could have
        msg = f"The encoder {model} is no folder here, and {name} can't be had from the hub: correct the name."
        raise FileNotFoundError(msg) from error
