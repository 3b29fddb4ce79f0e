"""AES-256 in counter mode on a GPU: the very words that a `KeyedStream` yields on the processor.

Bitsliced, so that nothing is looked up and no time depends on the key: two blocks of the cipher
lie in eight 32-bit numbers, one for each bit of a byte. Bit 8·row + 2·column + b of number k is bit
k of the byte in that row and column of block b: from one row to the next is a rotation of a number,
and ShiftRows rotates every eight bits of it (FIPS 197; after Adomnicai and Peyrin 2020, eprint
2020/1123). SubBytes inverts in GF(((2²)²)²), with exclusive-or and and alone (Satoh et al.,
ASIACRYPT 2001). The key is expanded on the processor, without looking anything up either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

_PAIRS = 256
_ROUNDS = 14
_MOST_BLOCKS = 1 << 62
_ONES = 0x01010101


def words_on(device: torch.device, *, keys: Tensor, first_block: int, blocks: int) -> Tensor:
    """Two 64-bit words of each block, [2·blocks] int64 with the bits of the unsigned words.

    Args:
        device: where they are made.
        keys: what `sliced_keys` returned, there.
        first_block: the counter's value at the first of them.
        blocks: how many.

    Raises:
        ValueError: the counter would pass the 62 bits that are counted here.
    """
    if not 0 <= first_block <= first_block + blocks <= _MOST_BLOCKS:
        raise ValueError(f"first_block={first_block} and blocks={blocks} must end before 2⁶²")
    pairs = -(-blocks // 2)
    words = torch.empty(4 * pairs, dtype=torch.int64, device=device)
    if pairs:
        grid = (triton.cdiv(pairs, _PAIRS),)
        _words[grid](words.view(torch.int32), keys, first_block, pairs, PAIRS=_PAIRS)
    return words[: 2 * blocks]


def sliced_keys(key: bytes) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The round keys of AES-256 as the kernel adds them, [15, 8] (FIPS 197, section 5.2).

    Args:
        key: 32 bytes.
    """
    words = [int.from_bytes(key[place : place + 4], "little") for place in range(0, 32, 4)]
    for place in range(8, 4 * (_ROUNDS + 1)):
        last = words[-1]
        if place % 8 == 0:
            last = _substituted_word(last >> 8 | (last & 0xFF) << 24) ^ 1 << (place // 8 - 1)
        elif place % 8 == 4:
            last = _substituted_word(last)
        words.append(words[place - 8] ^ last)
    # Number k's bits of a column stand at 2·column and, for the other block, beside that.
    columns = np.array(words, dtype=np.uint32).reshape(-1, 1, 4)
    bits = columns >> np.arange(8, dtype=np.uint32)[:, None] & np.uint32(_ONES)
    both = bits * np.uint32(3) << np.arange(0, 8, 2, dtype=np.uint32)
    keys: np.ndarray[Any, np.dtype[np.uint32]] = np.bitwise_or.reduce(both, axis=2)
    # SubBytes' constant, which the steps between it and the next key leave as it is.
    keys[1:] ^= np.array([-(0x63 >> bit & 1) for bit in range(8)], dtype=np.int32).view(np.uint32)
    return keys.view(np.int32)


def _substituted_word(word: int) -> int:
    """SubBytes of the four bytes of a number: A·x²⁵⁴ + 0x63."""
    square = _product(word, word)
    third = _product(square, word)
    twelfth = _power_of_two(third, 2)
    fifteenth = _product(twelfth, third)
    inverse = _product(_product(_power_of_two(fifteenth, 4), twelfth), square)
    turned = inverse
    for _ in range(4):
        turned = (turned & 0x7F7F7F7F) << 1 | turned >> 7 & _ONES
        inverse ^= turned
    return inverse ^ 0x63636363


def _power_of_two(word: int, doublings: int) -> int:
    for _ in range(doublings):
        word = _product(word, word)
    return word


def _product(left: int, right: int) -> int:
    """Of the bytes of two numbers in GF(2⁸), four at a time."""
    product = 0
    for bit in range(8):
        product ^= left & (right >> bit & _ONES) * 0xFF
        left = (left & 0x7F7F7F7F) << 1 ^ (left >> 7 & _ONES) * 0x1B
    return product


@triton.jit
def _words(words, keys, first_block, pairs, PAIRS: tl.constexpr):
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    block = first_block + 2 * pair
    zero = tl.zeros((PAIRS,), dtype=tl.uint32)
    # The counter's bytes, the highest first: its upper half is zero.
    s0, s1, s2, s3, s4, s5, s6, s7 = _transposed(
        zero,
        zero,
        zero,
        zero,
        _reversed_bytes(block >> 32),
        _reversed_bytes((block + 1) >> 32),
        _reversed_bytes(block),
        _reversed_bytes(block + 1),
    )
    s0, s1, s2, s3, s4, s5, s6, s7 = _with_key(keys, s0, s1, s2, s3, s4, s5, s6, s7)
    for turn in range(1, 14):
        s0, s1, s2, s3, s4, s5, s6, s7 = _substituted(s0, s1, s2, s3, s4, s5, s6, s7)
        s0, s1, s2, s3, s4, s5, s6, s7 = _shifted(s0, s1, s2, s3, s4, s5, s6, s7)
        s0, s1, s2, s3, s4, s5, s6, s7 = _mixed(s0, s1, s2, s3, s4, s5, s6, s7)
        s0, s1, s2, s3, s4, s5, s6, s7 = _with_key(keys + 8 * turn, s0, s1, s2, s3, s4, s5, s6, s7)
    s0, s1, s2, s3, s4, s5, s6, s7 = _substituted(s0, s1, s2, s3, s4, s5, s6, s7)
    s0, s1, s2, s3, s4, s5, s6, s7 = _shifted(s0, s1, s2, s3, s4, s5, s6, s7)
    s0, s1, s2, s3, s4, s5, s6, s7 = _with_key(keys + 8 * 14, s0, s1, s2, s3, s4, s5, s6, s7)
    s0, s1, s2, s3, s4, s5, s6, s7 = _transposed(s0, s1, s2, s3, s4, s5, s6, s7)
    _store(words + 8 * pair, pair < pairs, s0, s2, s4, s6)
    _store(words + 8 * pair + 4, pair < pairs, s1, s3, s5, s7)


@triton.jit
def _store(place, inside, w0, w1, w2, w3):
    tl.store(place, w0.to(tl.int32, bitcast=True), mask=inside)
    tl.store(place + 1, w1.to(tl.int32, bitcast=True), mask=inside)
    tl.store(place + 2, w2.to(tl.int32, bitcast=True), mask=inside)
    tl.store(place + 3, w3.to(tl.int32, bitcast=True), mask=inside)


@triton.jit
def _reversed_bytes(number):
    low = (number & 0xFFFFFFFF).to(tl.uint32)
    halves = ((low >> 8) & 0x00FF00FF) | ((low & 0x00FF00FF) << 8)
    return (halves >> 16) | (halves << 16)


@triton.jit
def _transposed(a, b, c, d, e, f, g, h):
    """Bit k of every byte of number j becomes bit j of it in number k, and back."""
    a, b = _exchanged(a, b, 0x55555555, 1)
    c, d = _exchanged(c, d, 0x55555555, 1)
    e, f = _exchanged(e, f, 0x55555555, 1)
    g, h = _exchanged(g, h, 0x55555555, 1)
    a, c = _exchanged(a, c, 0x33333333, 2)
    b, d = _exchanged(b, d, 0x33333333, 2)
    e, g = _exchanged(e, g, 0x33333333, 2)
    f, h = _exchanged(f, h, 0x33333333, 2)
    a, e = _exchanged(a, e, 0x0F0F0F0F, 4)
    b, f = _exchanged(b, f, 0x0F0F0F0F, 4)
    c, g = _exchanged(c, g, 0x0F0F0F0F, 4)
    d, h = _exchanged(d, h, 0x0F0F0F0F, 4)
    return a, b, c, d, e, f, g, h


@triton.jit
def _exchanged(a, b, MASK: tl.constexpr, SHIFT: tl.constexpr):
    moved = ((a >> SHIFT) ^ b) & MASK
    return a ^ (moved << SHIFT), b ^ moved


@triton.jit
def _with_key(keys, s0, s1, s2, s3, s4, s5, s6, s7):
    return (
        s0 ^ tl.load(keys).to(tl.uint32, bitcast=True),
        s1 ^ tl.load(keys + 1).to(tl.uint32, bitcast=True),
        s2 ^ tl.load(keys + 2).to(tl.uint32, bitcast=True),
        s3 ^ tl.load(keys + 3).to(tl.uint32, bitcast=True),
        s4 ^ tl.load(keys + 4).to(tl.uint32, bitcast=True),
        s5 ^ tl.load(keys + 5).to(tl.uint32, bitcast=True),
        s6 ^ tl.load(keys + 6).to(tl.uint32, bitcast=True),
        s7 ^ tl.load(keys + 7).to(tl.uint32, bitcast=True),
    )


@triton.jit
def _shifted(s0, s1, s2, s3, s4, s5, s6, s7):
    """ShiftRows."""
    return (
        _rotated(s0),
        _rotated(s1),
        _rotated(s2),
        _rotated(s3),
        _rotated(s4),
        _rotated(s5),
        _rotated(s6),
        _rotated(s7),
    )


@triton.jit
def _rotated(s):
    """Row r's eight bits, two a column, move down by r columns."""
    return (
        (s & 0x000000FF)
        | ((s >> 2) & 0x00003F00)
        | ((s << 6) & 0x0000C000)
        | ((s >> 4) & 0x000F0000)
        | ((s << 4) & 0x00F00000)
        | ((s >> 6) & 0x03000000)
        | ((s << 2) & 0xFC000000)
    )


@triton.jit
def _below(s):
    """The row below, in the place of each."""
    return (s >> 8) | (s << 24)


@triton.jit
def _two_below(s):
    return (s >> 16) | (s << 16)


@triton.jit
def _mixed(s0, s1, s2, s3, s4, s5, s6, s7):
    """MixColumns: 2·(a + b) + b + c + d for a row a and the three below it."""
    b0, b1, b2, b3 = _below(s0), _below(s1), _below(s2), _below(s3)
    b4, b5, b6, b7 = _below(s4), _below(s5), _below(s6), _below(s7)
    t0, t1, t2, t3 = s0 ^ b0, s1 ^ b1, s2 ^ b2, s3 ^ b3
    t4, t5, t6, t7 = s4 ^ b4, s5 ^ b5, s6 ^ b6, s7 ^ b7
    return (
        t7 ^ b0 ^ _two_below(t0),
        t0 ^ t7 ^ b1 ^ _two_below(t1),
        t1 ^ b2 ^ _two_below(t2),
        t2 ^ t7 ^ b3 ^ _two_below(t3),
        t3 ^ t7 ^ b4 ^ _two_below(t4),
        t4 ^ b5 ^ _two_below(t5),
        t5 ^ b6 ^ _two_below(t6),
        t6 ^ b7 ^ _two_below(t7),
    )


@triton.jit
def _substituted(x0, x1, x2, x3, x4, x5, x6, x7):
    """SubBytes without its constant, in a tower where (h·y + l)⁻¹ = (h·y + h + l)·d⁻¹.

    There y² = y + 8 and d = 8·h² + l·(h + l).
    """
    a0 = x0 ^ x2
    a1 = x1 ^ x6 ^ x7
    a2 = x2 ^ x5
    a3 = a1 ^ x3
    a4 = x1 ^ x5 ^ x7
    a5 = x1 ^ x4 ^ x5 ^ x6
    a6 = a5 ^ x2 ^ x3
    a7 = x5 ^ x7
    b0, b1, b2, b3 = a4 ^ a0, a5 ^ a1, a6 ^ a2, a7 ^ a3
    d0, d1, d2, d3 = _times_16(a0, a1, a2, a3, b0, b1, b2, b3)
    d0, d1, d2, d3 = _inverse_16(d0 ^ a6, d1 ^ a6 ^ a7, d2 ^ a5 ^ a6 ^ a7, d3 ^ a4 ^ a7)
    z0, z1, z2, z3 = _times_16(b0, b1, b2, b3, d0, d1, d2, d3)
    z4, z5, z6, z7 = _times_16(a4, a5, a6, a7, d0, d1, d2, d3)
    return (
        z0 ^ z2 ^ z4 ^ z5,
        z0 ^ z1 ^ z2,
        z0 ^ z1,
        z0 ^ z2 ^ z4 ^ z5 ^ z6,
        z0 ^ z3 ^ z4 ^ z5,
        z2 ^ z3 ^ z4 ^ z5,
        z4 ^ z6 ^ z7,
        z2 ^ z4 ^ z6,
    )


@triton.jit
def _inverse_16(a0, a1, a2, a3):
    """In GF(2⁴), where z² = z + w: the inverse of h·z + l over d = w·h² + l·(h + l)."""
    b0, b1 = a0 ^ a2, a1 ^ a3
    d0, d1 = _times_4(a0, a1, b0, b1)
    d0, d1 = d0 ^ a3, d1 ^ a2
    d0 = d0 ^ d1  # its inverse is its square
    l0, l1 = _times_4(b0, b1, d0, d1)
    h0, h1 = _times_4(a2, a3, d0, d1)
    return l0, l1, h0, h1


@triton.jit
def _times_16(a0, a1, a2, a3, b0, b1, b2, b3):
    h0, h1 = _times_4(a2, a3, b2, b3)
    l0, l1 = _times_4(a0, a1, b0, b1)
    m0, m1 = _times_4(a0 ^ a2, a1 ^ a3, b0 ^ b2, b1 ^ b3)
    return l0 ^ h1, l1 ^ h0 ^ h1, m0 ^ l0, m1 ^ l1


@triton.jit
def _times_4(a0, a1, b0, b1):
    """In GF(2²), where w² = w + 1."""
    low = a0 & b0
    return low ^ (a1 & b1), low ^ ((a0 ^ a1) & (b0 ^ b1))
