"""What must not be split: rows of one group, and rows with the same context and prompt."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lengthpred.base import IntArray

__all__ = ["content_keys", "group_keys", "hashes", "joined_groups"]


def group_keys(columns: Mapping[str, list[Any]], n: int, offset: int) -> IntArray:
    """A hash of each row's group, (n,); a row without one is a group of its own.

    columns: of n rows by name, of which `offset` precede in the table.
    """
    groups = columns.get("group") or [None] * n
    return hashes([f"\1{group}" if group else f"\0{offset + i}" for i, group in enumerate(groups)])


def content_keys(columns: Mapping[str, list[Any]], n: int, offset: int) -> IntArray:
    """A hash of each row's context and prompt, (n,); arguments as in `group_keys`.

    Where neither is known, rows that look alike are not the same.
    """
    prompts, contexts = (columns.get(name) or [""] * n for name in ("prompt", "context"))
    pairs = enumerate(zip(contexts, prompts, strict=True), offset)
    return hashes(
        [
            f"{context or ''}\0{prompt or ''}" if context or prompt else f"\1{i}"
            for i, (context, prompt) in pairs
        ]
    )


def hashes(texts: Sequence[str]) -> IntArray:
    """64 bits of each text: among a million rows two differ in vain once in 40 million tables."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, np.int64)


def joined_groups(group: IntArray, content: IntArray) -> IntArray:
    """A number for each row, shape (n,): equal where groups are one, or joined by equal content.

    Numbers rise in the order in which they first occur.
    """
    _, groups = np.unique(group, return_inverse=True)
    _, contents = np.unique(content, return_inverse=True)
    n_groups = int(groups.max(initial=-1)) + 1
    parent = list(range(n_groups + int(contents.max(initial=-1)) + 1))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in zip(groups.tolist(), (contents + n_groups).tolist(), strict=True):
        left, right = root(a), root(b)
        if left != right:
            parent[max(left, right)] = min(left, right)
    roots = np.array([root(a) for a in groups.tolist()], np.int64)
    _, first, number = np.unique(roots, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    joined: IntArray = rank[number]
    return joined
