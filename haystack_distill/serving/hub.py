"""Models that are named as on the Hugging Face hub, as folders."""

from pathlib import Path

OTHER_RUNTIMES = ["onnx/*", "openvino/*", "coreml/*", "*.h5", "*.msgpack", "*.ot", "*.gguf"]
"""What is beside the weights of many models and would be downloaded for nothing."""


def local_folder(model: str) -> str:
    """
    Find the folder of a model; one that is not on this machine is downloaded, as sentence-transformers would.

    :raises FileNotFoundError: If there is no such folder, and the hub has no such model or can't be reached.
    """
    if Path(model).exists():
        return model
    from huggingface_hub import snapshot_download

    name = model if "/" in model else f"sentence-transformers/{model}"
    try:
        return str(snapshot_download(name, ignore_patterns=OTHER_RUNTIMES))
    except (OSError, ValueError) as error:  # not there, not to be reached, or no name that a model could have
        msg = f"The encoder {model} is no folder here, and {name} can't be had from the hub: correct the name."
        raise FileNotFoundError(msg) from error
