"""Digests of bytes, tensors, numbers, texts and nested structures of them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal, 64 characters."""
    return hashlib.sha256(content).hexdigest()


def digest(*content: Any) -> str:
    """Return a digest of values, 64 hexadecimal characters: equal where types, shapes and contents are equal."""
    sha = hashlib.sha256()
    for item in content:
        _update(sha, item)
    return sha.hexdigest()


def _update(sha: Any, content: Any) -> None:
    if hasattr(content, "detach"):  # a tensor; torch is not imported here
        tensor = content.detach().cpu().contiguous()
        sha.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        sha.update(_tensor_bytes(tensor))
    elif isinstance(content, bytes):
        sha.update(content)
    elif isinstance(content, Mapping):
        for key in sorted(content, key=str):
            sha.update(f"{key}:".encode())
            _update(sha, content[key])
    elif isinstance(content, Sequence) and not isinstance(content, str):
        sha.update(f"[{len(content)}".encode())
        for item in content:
            _update(sha, item)
    else:
        sha.update(repr(content).encode())


def _tensor_bytes(tensor: Any) -> Any:
    import torch

    return tensor.flatten().view(torch.uint8).numpy().data
