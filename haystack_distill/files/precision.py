"""Whether a device multiplies bfloat16 in hardware."""

import torch


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    return any(on and "bf16" in name for name, on in torch.cpu.get_capabilities().items())


def bf16_where_fast(device: torch.device) -> torch.autocast:
    """A context that multiplies in bfloat16 where the device has hardware for it, and changes nothing elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast(device))
