"""Each format page is complete, and its vectors and constants are what code reads and writes."""

from __future__ import annotations

import re
from typing import Any

import cbor2
import pytest
import zstandard
from blake3 import blake3

from holdfast.vault import keys
from holdfast.vault.backends import names
from tests.formats import golden, page_vectors, pages
from tests.formats.test_read_pool import read_pool

FRAME = pages.vector("pack", "zstd-frame")
MADE = page_vectors.all_pages(FRAME)
SECTIONS = ("Write order", "Reader rules", "Limits", "Recovery", "Threats", "Vectors")


def constant(page: str, name: str) -> Any:
    return pages.constants(page)[name]


def test_every_page_in_the_folder_is_tested() -> None:
    assert {path.stem for path in pages.PAGES.glob("*.md")} == set(MADE) | {"review"}


def test_the_review_points_at_pages_and_code_that_exist() -> None:
    for label, link in re.findall(r"\[([^\]]+)\]\(([^)]+)\)", pages.page("review")):
        target = pages.PAGES / link
        assert target.exists(), link
        if label.startswith("`"):
            assert re.search(rf"\b{label.strip('`')}\b", target.read_text("utf-8")), label


@pytest.mark.parametrize("page", sorted(MADE))
def test_the_golden_writer_makes_every_vector_of_the_page(page: str) -> None:
    expected = MADE[page]()
    found = pages.vectors(page)
    assert sorted(found) == sorted(expected)
    for label, raw in expected.items():
        assert found[label] == raw, label


@pytest.mark.parametrize("page", sorted(MADE))
def test_a_page_has_all_its_sections_and_its_links_lead_somewhere(page: str) -> None:
    text = pages.page(page)
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    for section in SECTIONS:
        if page != "chunking":
            assert section in sections
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (pages.PAGES / link).exists(), link


def test_the_frame_on_the_page_is_one_zstd_frame_of_known_length() -> None:
    assert zstandard.frame_content_size(FRAME) == len(page_vectors.ZSTD_PLAIN)
    assert zstandard.ZstdDecompressor().decompress(FRAME) == page_vectors.ZSTD_PLAIN


def test_the_readers_constants_are_those_of_the_pages() -> None:
    pairs = {
        ("pool-header", "magic"): read_pool.POOL_MAGIC,
        ("pool-header", "version"): read_pool.POOL_VERSION,
        ("pool-header", "version_alone"): read_pool.POOL_VERSION_ALONE,
        ("pool-header", "naming_bytes"): read_pool.NAMING_BYTES,
        ("pack", "magic"): read_pool.PACK_MAGIC,
        ("pack", "end_magic"): read_pool.PACK_END_MAGIC,
        ("pack", "version"): read_pool.PACK_VERSION,
        ("pack", "header_bytes"): read_pool.PACK_HEADER_BYTES,
        ("pack", "trailer_bytes"): read_pool.PACK_TRAILER_BYTES,
        ("pack", "footer_place"): read_pool.FOOTER_PLACE,
        ("pack", "max_block_bytes"): read_pool.MAX_BLOCK_BYTES,
        ("pack", "max_footer_bytes"): read_pool.MAX_FOOTER_BYTES,
        ("manifest", "magic"): read_pool.OBJECT_MAGIC,
        ("manifest", "version"): read_pool.OBJECT_VERSION,
        ("client-keys", "seal_bytes"): read_pool.CLIENT_SEAL_BYTES,
        ("client-keys", "name_id_bytes"): read_pool.NAME_ID_BYTES,
        ("client-keys", "name_prefix"): read_pool.SEALED_NAME,
        ("tree", "ref_bytes"): read_pool.REF_BYTES,
        ("tree", "max_list_depth"): read_pool.MAX_LIST_DEPTH,
        ("tree", "max_node_level"): read_pool.MAX_NODE_LEVEL,
        ("key-slots", "version"): read_pool.SLOT_VERSION,
        ("key-slots", "max_slot_bytes"): read_pool.MAX_SLOT_BYTES,
        ("key-slots", "max_memory_kib"): read_pool.MAX_MEMORY_KIB,
        ("key-slots", "max_passes"): read_pool.MAX_PASSES,
        ("key-slots", "max_lanes"): read_pool.MAX_LANES,
    }
    for (page, name), value in pairs.items():
        assert constant(page, name) == value, f"{name} on {page}"


def test_the_vaults_constants_are_those_of_the_pages() -> None:
    pairs = {
        ("key-slots", "format"): keys.FORMAT.encode(),
        ("key-slots", "version"): keys.VERSION,
        ("key-slots", "kind_passphrase"): keys.KIND_CODES["passphrase"],
        ("key-slots", "kind_key_file"): keys.KIND_CODES["key-file"],
        ("key-slots", "salt_bytes"): keys.SALT_BYTES,
        ("key-slots", "nonce_bytes"): keys.NONCE_BYTES,
        ("key-slots", "wrapped_bytes"): keys.WRAPPED_BYTES,
        ("key-slots", "key_file_info"): keys.KEY_FILE_INFO,
        ("key-slots", "default_memory_kib"): keys.DEFAULT_COST.memory_kib,
        ("key-slots", "default_passes"): keys.DEFAULT_COST.passes,
        ("key-slots", "default_lanes"): keys.DEFAULT_COST.lanes,
        ("key-slots", "max_memory_kib"): keys.MAX_MEMORY_KIB,
        ("key-slots", "max_passes"): keys.MAX_PASSES,
        ("key-slots", "max_lanes"): keys.MAX_LANES,
        ("key-slots", "max_slot_bytes"): keys.MAX_SLOT_BYTES,
        ("key-slots", "max_slots"): keys.MAX_SLOTS,
        ("store-layout", "max_key_bytes"): names.MAX_KEY_BYTES,
    }
    for (page, name), value in pairs.items():
        assert constant(page, name) == value, f"{name} on {page}"
    reserved = constant("store-layout", "reserved_part").decode()
    assert not names.is_key(f"{reserved}/x")
    part = constant("store-layout", "max_part_bytes")
    assert names.is_key("a" * part)
    assert not names.is_key("a" * (part + 1))


def test_the_masks_of_the_writer_are_those_of_the_page() -> None:
    for name, mask in pages.constants("chunking").items():
        assert golden.MASKS[int(name.removeprefix("mask_"))] == mask


def test_stored_vectors_begin_and_end_as_the_constants_say() -> None:
    header = pages.vector("pool-header", "header")
    assert header.startswith(constant("pool-header", "magic"))
    pack = pages.vector("pack", "pack")
    assert pack.startswith(constant("pack", "magic") + bytes([constant("pack", "version")]))
    assert pack.endswith(constant("pack", "end_magic") + bytes([constant("pack", "version")]))
    assert blake3(pack).digest() == pages.vector("pack", "pack-id")
    segment = pages.vector("index", "segment")
    assert segment.startswith(constant("index", "magic"))
    for page, label, letter in (
        ("manifest", "manifest", "type_image"),
        ("jobs-and-marks", "job", "type_job"),
        ("jobs-and-marks", "mark", "type_mark"),
    ):
        front = constant("manifest", "magic") + constant("manifest", letter)
        assert pages.vector(page, label).startswith(front)
    assert len(pages.vector("key-slots", "passphrase-bound")) == constant(
        "key-slots", "bound_bytes"
    )


def test_every_cbor_vector_is_canonical() -> None:
    for page, label in (
        ("tree", "leaf"),
        ("tree", "node"),
        ("manifest", "manifest-plain"),
        ("jobs-and-marks", "job-plain"),
        ("jobs-and-marks", "mark-plain"),
    ):
        raw = pages.vector(page, label)
        assert cbor2.dumps(cbor2.loads(raw)) == raw, label


def test_the_vault_opens_the_slots_of_the_page() -> None:
    from holdfast.vault.secrets import Passphrase

    words = pages.vector("key-slots", "passphrase").decode()
    slot = keys.decode("of the page", pages.vector("key-slots", "passphrase-slot"))
    assert keys.bound_to(slot) == pages.vector("key-slots", "passphrase-bound")
    made = keys.wrap(
        golden.POOL_ID, golden.POOL_KEY, Passphrase(words), slot.cost, slot.salt, slot.nonce
    )
    assert made.wrapped == slot.wrapped
    assert keys.encode(made).rstrip() == pages.vector("key-slots", "passphrase-slot")


def test_a_transfer_token_of_the_page_is_one() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from holdfast.wire import transfer_tokens as tokens

    public = Ed25519PublicKey.from_public_bytes(pages.vector("transfer", "public-key"))
    private = Ed25519PrivateKey.from_private_bytes(pages.vector("transfer", "private-key"))
    text = pages.vector("transfer", "token").decode()
    grant = tokens.check(text, public, 0)
    assert tokens.sign(grant, private) == text
    assert (grant.source, grant.parent) == ("alpha:/srv,/größe", "e1" * 16)
    assert constant("transfer", "token_context") == tokens._CONTEXT
    assert constant("transfer", "token_version") == tokens.VERSION
    assert constant("transfer", "token_longest") == tokens.LONGEST
    assert constant("transfer", "token_leeway_s") == tokens.LEEWAY_S
