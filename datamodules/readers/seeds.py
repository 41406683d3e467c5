"""One seed out of several numbers."""

import hashlib


def mix_seed(purpose: str, *numbers: int) -> int:
    """Return a 64-bit seed from a purpose and integers, by BLAKE2b.

    A sum would give (seed 0, epoch 1) and (seed 1, epoch 0) the same stream. torch's CPU generator uses the low 32 bits
    only (torch 2.13: manual_seed(5) and manual_seed(5 + 2**32) agree), hence a hash, whose low bits are mixed too.
    """
    text = " ".join([purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
