"""Models that are named as on the Hugging Face hub, as folders; and folders that are put there."""

from pathlib import Path

from haystack_distill.files.layout import CARD, MODULES, hub_name

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

    name = hub_name(model)
    try:
        return str(snapshot_download(name, revision=revision, token=token, ignore_patterns=OTHER_RUNTIMES))
    except (OSError, ValueError) as error:  # not there, not to be reached, or no name that a model could have
        msg = f"The encoder {model} is no folder here, and {name} can't be had from the hub: correct the name."
        raise FileNotFoundError(msg) from error


def push(folder: Path, name: str) -> str:
    """
    Put a model with all that is beside it on the hub: into a new, private repository, or into one that is there.

    Who is asking is known to huggingface_hub: by `hf auth login`, or by `HF_TOKEN`.

    :param name: As `org/name`, or a name alone in one's own space.
    :returns: The address of the repository.
    :raises FileNotFoundError: If the folder holds no model with a card.
    :raises ConnectionError: If the hub can't be reached or refuses.
    """
    if not (folder / MODULES).is_file() or not (folder / CARD).is_file():
        inside = sorted(place.parent.name for place in folder.glob(f"*/{MODULES}"))
        way = (
            f"push {' and '.join(inside)} in it, each to a repository of its own" if inside else "name a model's folder"
        )
        msg = f"{folder} is not a model that was made here, with {MODULES} and {CARD}: {way}."
        raise FileNotFoundError(msg)
    from httpx import HTTPError
    from huggingface_hub import HfApi

    from haystack_distill.evaluation.card import renamed

    hub, card = HfApi(library_name="haystack-distill"), (folder / CARD).read_text(encoding="utf-8")
    try:
        repository = hub.create_repo(name, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository.repo_id, folder_path=folder, ignore_patterns=[CARD])
        content = renamed(card, repository.repo_id).encode()
        hub.upload_file(path_or_fileobj=content, path_in_repo=CARD, repo_id=repository.repo_id)
    except (OSError, ValueError, HTTPError) as error:
        said = str(error).strip().partition("\n")[0]
        msg = f"{folder} can't be put on the hub as {name} ({said}): log in with `hf auth login`, or set HF_TOKEN."
        raise ConnectionError(msg) from error
    return str(repository)
