"""Writes the vectors in specs/vectors, from the clauses alone.

This is on purpose not Rust and shares nothing with the crates: it is a second implementation of what it covers, so that a
mistake in the code does not become the expected result. It runs on demand only (`just vectors`); the tests read the JSON.
Needs Python 3.9 and the packages `blake3` and `cryptography`. The output is the same each time.
"""

import base64
import copy
import datetime
import hashlib
import json
import pathlib
import struct

import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

FOLDER = pathlib.Path(__file__).parents[3] / "specs" / "vectors"
NOW = 1_795_000_000_000
HOUR = 3_600_000
GROUP = 262_144


def hash_of(data):
    return blake3.blake3(data).digest()


# STATEMENT-10: canonical DAG-CBOR


def cbor_head(major, number):
    if number < 24:
        return bytes([major << 5 | number])
    for extra, (layout, limit) in enumerate([(">B", 1 << 8), (">H", 1 << 16), (">I", 1 << 32), (">Q", 1 << 64)]):
        if number < limit:
            return bytes([major << 5 | 24 + extra]) + struct.pack(layout, number)
    raise ValueError(number)


def cbor(value):
    if value is None:
        return b"\xf6"
    if value is True:
        return b"\xf5"
    if value is False:
        return b"\xf4"
    if isinstance(value, int):
        return cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    if isinstance(value, str):
        return cbor_head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return cbor_head(4, len(value)) + b"".join(map(cbor, value))
    keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
    return cbor_map(value, keys)


def cbor_map(value, keys):
    """A map with its entries in the order that is given, right or wrong."""
    return cbor_head(5, len(keys)) + b"".join(cbor(key) + cbor(value[key]) for key in keys)


# STATEMENT-1 to STATEMENT-6: the envelope


class Key:
    def __init__(self, number):
        self.secret = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        self.public = self.secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def signed_bytes(kind, alliance, payload):
    domain = b"alliance-statement-v1\0"
    return domain + bytes([len(kind)]) + kind.encode() + alliance + struct.pack(">I", len(payload)) + payload


def envelope(kind, alliance, payload, keys):
    message = signed_bytes(kind, alliance, payload)
    keys = sorted(keys, key=lambda key: key.public)
    signatures = [{"key": key.public, "signature": key.secret.sign(message)} for key in keys]
    return {"kind": kind, "payload": payload, "alliance": alliance, "signatures": signatures}


def shown(value):
    """A value for reading, with byte strings in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    return value


def lasting(ms):
    return {"from": NOW, "until": NOW + ms}


BR, IN, NODE, IMPORTER = Key(1), Key(2), Key(10), Key(11)
VALID, REFUSED = [], []


def valid(reason, kind, alliance, body, keys):
    payload = cbor(body)
    whole = envelope(kind, alliance, payload, keys)
    message = signed_bytes(kind, alliance, payload)
    VALID.append(
        {
            "reason": reason,
            "kind": kind,
            "alliance": alliance.hex(),
            "body": shown(body),
            "payload": payload.hex(),
            "signed": message.hex(),
            "id": hash_of(message).hex(),
            "signers": [by["key"].hex() for by in whole["signatures"]],
            "statement": cbor(whole).hex(),
        }
    )
    return cbor(whole), hash_of(message)


def valid_statements():
    charter = {
        "name": "Test alliance",
        "version": 1,
        "issued": NOW,
        "threshold": 2,
        "previous": None,
        "witnesses": {"countries": 1, "grace_ms": 60_000},
        "members": {
            "BR": {"seat": "full", "authority": {"name": "Autoridade", "officers": [BR.public], "threshold": 1}},
            "IN": {"seat": "full", "authority": {"name": "Authority", "officers": [IN.public], "threshold": 1}},
        },
    }
    reason = "a founding charter belongs to no alliance yet; two officers signed"
    _, alliance = valid(reason, "charter", bytes(32), charter, [BR, IN])
    ZA = Key(3)
    partner = {"seat": "partner", "authority": {"name": "", "officers": [ZA.public], "threshold": 1}}
    members = dict(charter["members"], ZA=partner)
    following = dict(charter, version=2, issued=NOW + HOUR, previous=alliance, members=members)
    reason = "the version that follows is of the alliance; a new member, without a vote, signs for itself"
    valid(reason, "charter", alliance, following, [BR, IN, ZA])

    usp = {"name": "usp", "roles": ["controller", "university"], "controlled_by": None, "state_controlled": True}
    accreditation = {
        "member": "BR",
        "node": NODE.public,
        "organisation": usp,
        "zone": None,
        "roles": ["exporter", "importer"],
        "validity": lasting(24 * HOUR),
    }
    reason = "sets of words ascend in the order of the vocabulary; absent values are null"
    accredited, _ = valid(reason, "accreditation", alliance, accreditation, [BR])
    placed = dict(accreditation, tier="corroborated", place={"latitude": -23_551, "longitude": -46_633})
    valid("a tier above the usual one, and a place south and west", "accreditation", alliance, placed, [BR])
    tdra = {"name": "tdra-labs", "roles": ["university"], "controlled_by": "ZA", "state_controlled": False}
    other = dict(
        accreditation, member="AE", node=IMPORTER.public, organisation=tdra, zone="AE-DIFC", roles=["importer"]
    )
    importer, _ = valid(
        "a zone, and another country that controls the operator", "accreditation", alliance, other, [IN]
    )

    pack = {
        "member": "BR",
        "epoch": 3,
        "issued": NOW,
        "law": "permit (principal, action, resource);",
        "directives": "",
    }
    _, law = valid("a law pack; whether its text is a valid pack is another matter", "law-pack", alliance, pack, [BR])
    status = {
        "member": "BR",
        "serial": 2**64 - 1,
        "validity": lasting(HOUR),
        "law_pack": law,
        "epoch": 3,
        "upcoming": [{"from": NOW + HOUR, "law_pack": hash_of(b"a law pack"), "epoch": 4}],
        "revoked": [Key(12).public],
        "bans": [{"destination": "IN"}, {"recipient": Key(13).public}],
        "experts": [{"key": key, "name": "Ana"} for key in sorted([Key(14).public])],
    }
    valid("a status, with a law pack to come, one key revoked and two bans", "status", alliance, status, [BR])
    graceful = dict(status, serial=1, upcoming=[], revoked=[], bans=[], grace_ms=5 * 60_000)
    del graceful["experts"]
    reason = "a status that grants what runs five minutes; experts are left out where there are none, a grace where it is 0"
    valid(reason, "status", alliance, graceful, [BR])
    safeguard = {
        "issuer": "BR",
        "kind": "scc_br",
        "reference": "2026/17",
        "from": "BR",
        "to": "IN",
        "labels": ["personal", "health", "genetic"],
        "recipient": IMPORTER.public,
        "rules": ["BR-01", "BR-03"],
        "filed": NOW,
        "validity": lasting(HOUR),
    }
    reason = "a safeguard; labels ascend in the order of the vocabulary, not of the alphabet"
    safeguarded, _ = valid(reason, "safeguard", alliance, safeguard, [BR])
    approval = {
        "on_behalf": {"member": "BR"},
        "manifest": hash_of(b"a manifest"),
        "exporter": NODE.public,
        "importer": IMPORTER.public,
        "purpose": "research",
        "use": "inference",
        "granted": True,
        "reason": "",
        "validity": lasting(HOUR),
    }
    refused_by = dict(approval, importer=None, granted=False, reason="not before the evaluation")
    valid("a refusal to all, with its reason", "approval", alliance, refused_by, [BR])
    valid("an approval by an officer of an authority", "approval", alliance, approval, [BR])
    valid("an approval for the house", "approval", alliance, dict(approval, on_behalf="house"), [NODE])

    record = {
        "node": NODE.public,
        "accreditation": accredited,
        "mesh": ["/ip4/192.0.2.1/udp/4001/quic-v1"],
        "bulk": ["192.0.2.1:4002", "[2001:db8::1]:4002"],
        "charter": 2,
        "serial": 7,
        "validity": lasting(HOUR),
    }
    valid("a node record", "node-record", alliance, record, [NODE])
    signer = ec.derive_private_key(7, ec.SECP256R1())
    agreed = b"alliance/v1/model-key-proof\n" + alliance + NODE.public
    bound = {
        "node": NODE.public,
        "key": signer.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
        "proof": signer.sign(agreed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)),
        "since": NOW,
    }
    binding, _ = valid("a key that signs models", "model-key", alliance, bound, [NODE])
    reason = "a node record with the key that signs models"
    valid(reason, "node-record", alliance, dict(record, model_key=binding, serial=8), [NODE])
    manifest = hash_of(b"a manifest")
    model = {
        "artefact": "weights",
        "manifest": manifest,
        "bytes": 300_000,
        "files": 1,
        "tensors": 2,
        "labels": ["non_personal", "personal"],
        "parts": [
            {"labels": ["non_personal"], "tensors": 1, "bytes": 299_000},
            {"labels": ["personal"], "tensors": 1, "bytes": 1_000},
        ],
        "origin": "BR",
        "subjects": ["BR", "ZA"],
        "provenance": {"people": 12, "circumstances": ["collection"], "evidence": ["dp_budget", "ai_label"]},
        "licence": "Apache-2.0",
    }
    terms = {"purposes": ["research", "evaluation"], "to": [], "onward": True}
    offer = {
        "node": NODE.public,
        "name": "usp/amazonia",
        "what": {"model": model},
        "terms": terms,
        "root": None,
        "validity": lasting(HOUR),
    }
    _, offered = valid("an offer of a model", "offer", alliance, offer, [NODE])
    proven = dict(model["provenance"], training={"attestation": b"\x31" * 32, "countries": ["BR", "ZA"]})
    reason = "an offer of a model that was provably trained in two countries"
    valid(reason, "offer", alliance, dict(offer, what={"model": dict(model, provenance=proven)}), [NODE])
    card = {"languages": ["en", "pt"], "datasets": ["usp/corpus"], "base_models": ["usp/amazonia-base"], "left_out": 3}
    carded = dict(model["provenance"], card=card)
    reason = "an offer of a model that was imported with a model card"
    valid(reason, "offer", alliance, dict(offer, what={"model": dict(model, provenance=carded)}), [NODE])
    valid("an offer of what came from another", "offer", alliance, dict(offer, node=IMPORTER.public, root=offered), [IMPORTER])
    compute = {"accelerator": "H200", "count": 8, "memory_mib": 143_771, "hours": 72}
    terms = {"purposes": [], "to": ["IN", "ZA"], "onward": False}
    offer = dict(offer, name="usp/cluster", what={"compute": compute}, terms=terms)
    valid("an offer of compute", "offer", alliance, offer, [NODE])
    withdrawal = {"node": NODE.public, "offer": offered, "at": NOW, "reason": ""}
    valid("a withdrawal", "withdrawal", alliance, withdrawal, [NODE])

    crossing, session = b"\xc0" * 32, b"\x5e" * 32
    ends = {"crossing": crossing, "importer": IMPORTER.public, "exporter": NODE.public}
    request = dict(
        ends,
        offer=offered,
        manifest=manifest,
        purpose="research",
        use="inference",
        circumstances=["collection", "public_audience"],
        safeguards=[safeguarded],
        accreditation=importer,
        verdicts=hash_of(cbor([])),
        session=session,
        ledger={"size": 7, "root": b"\x07" * 32},
        asked=NOW,
    )
    reason = "a request that presents a safeguard"
    _, requested = valid(reason, "crossing-request", alliance, request, [IMPORTER])
    clearance = dict(
        ends,
        request=requested,
        manifest=manifest,
        labels=["non_personal"],
        purpose="research",
        epochs=[["BR", 3], ["IN", 5]],
        people=12,
        volume={"people": 12, "sensitive_people": 2**63 - 1},
        session=session,
        ledger={"size": 7, "root": b"\x07" * 32},
        validity=lasting(60_000),
    )
    _, cleared = valid("a clearance", "clearance", alliance, clearance, [NODE])
    valid("a clearance with an attestation", "clearance", alliance, dict(clearance, training=b"{}\n"), [NODE])
    refusal = {"crossing": crossing, "request": requested, "exporter": NODE.public, "code": "denied_by_law", "at": NOW}
    valid("a refusal", "refusal", alliance, refusal, [NODE])
    receipt = dict(ends, clearance=cleared, manifest=manifest, bytes=262_144, held_bytes=37_856, finished=NOW)
    receipt["ledger"] = {"size": 9, "root": b"\x09" * 32}
    valid("a receipt with both signatures", "receipt", alliance, receipt, [NODE, IMPORTER])
    following = Key(15)
    renewed, _ = valid(
        "the next key of the same node", "accreditation", alliance, dict(accreditation, node=following.public), [BR]
    )
    rotation = {
        "old": NODE.public,
        "new": following.public,
        "at": NOW,
        "reason": "a laptop was stolen",
        "ledger": {"size": 9, "root": b"\x09" * 32},
        "old_accreditation": accredited,
        "new_accreditation": renewed,
    }
    valid("a key makes way for another; both sign", "key-rotation", alliance, rotation, [NODE, following])
    return alliance, accredited, offered


def refused(reason, why, statement, kind, alliance):
    case = {"reason": reason, "kind": kind, "alliance": alliance.hex(), "refused_for": why}
    REFUSED.append(dict(case, statement=statement.hex()))


def refused_statements(alliance, offered):
    body = {"node": NODE.public, "offer": offered, "at": NOW, "reason": "end"}
    payload = cbor(body)
    good = envelope("withdrawal", alliance, payload, [NODE])
    encoded = cbor(good)

    def bad(reason, why, statement, kind="withdrawal"):
        refused(reason, why, statement, kind, alliance)

    def bad_signatures(reason, why, signatures):
        bad(reason, why, cbor(dict(good, signatures=signatures)))

    def bad_payload(reason, altered):
        bad(reason, "payload", cbor(envelope("withdrawal", alliance, altered, [NODE])))

    def bad_offer(reason, why="payload", **changes):
        compute = {"accelerator": "cpu", "count": 1, "memory_mib": 1, "hours": 1}
        terms = {"purposes": [], "to": [], "onward": False}
        offer = {"node": NODE.public, "name": "usp/cluster", "what": {"compute": compute}, "terms": terms, "root": None}
        altered = cbor({**offer, "validity": lasting(1), **changes})
        bad(reason, why, cbor(envelope("offer", alliance, altered, [NODE])), "offer")

    bad("a byte behind the end", "envelope", encoded + b"\0")
    bad("cut short by a byte", "envelope", encoded[:-1])
    bad("an unknown field in the envelope", "envelope", cbor(dict(good, extra=1)))
    bad("the entries of the envelope in alphabetical order", "envelope", cbor_map(good, sorted(good)))
    long_form = encoded.replace(cbor("withdrawal"), b"\x78\x0awithdrawal", 1)
    bad("the length of a text not in its shortest form", "envelope", long_form)
    bad("a statement of another kind", "kind", cbor(envelope("offer", alliance, payload, [NODE])))
    bad("the kind was changed after signing", "signature", cbor(dict(good, kind="offer")), "offer")
    elsewhere = bytes([9]) * 32
    bad("another alliance", "alliance", cbor(envelope("withdrawal", elsewhere, payload, [NODE])))
    bad("the alliance was changed after signing", "signature", cbor(dict(good, alliance=elsewhere)))

    [by] = good["signatures"]
    bad_signatures("no signature", "unsigned", [])
    # Signatures are looked at before the payload, so that this one need not be of a status.
    spoken = envelope("status", alliance, payload, [NODE, IMPORTER])
    first, second = spoken["signatures"]

    def bad_officers(reason, why, signatures):
        bad(reason, why, cbor(dict(spoken, signatures=signatures)), "status")

    bad_officers("one key twice", "signature_order", [first, first, second])
    bad_officers("signatures not in the order of their keys", "signature_order", [second, first])
    bad_officers("one good and one bad signature", "signature", [first, dict(second, signature=bytes(64))])
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(by["signature"][32:], "little") + order
    malleable = dict(by, signature=by["signature"][:32] + scalar.to_bytes(32, "little"))
    bad_signatures("S of the signature plus the order of the group", "signature", [malleable])
    neutral = bytes([1] + [0] * 31)
    loose = {"key": neutral, "signature": neutral + bytes(32)}
    bad_signatures("a key of small order, with which any message verifies loosely", "signature", [loose])
    two = envelope("withdrawal", alliance, payload, [NODE, IMPORTER])
    bad("two signatures under what one node says", "too_many_signatures", cbor(two))
    three = envelope("key-rotation", alliance, payload, [NODE, IMPORTER, BR])
    bad("three signatures under a key rotation", "too_many_signatures", cbor(three), "key-rotation")
    many = envelope("status", alliance, payload, [Key(number) for number in range(1, 18)])
    bad("17 signatures under what an authority says", "too_many_signatures", cbor(many), "status")

    bad_payload("a field of the body is missing", cbor({key: body[key] for key in ("node", "offer", "at")}))
    bad_payload("a field that the body does not have", cbor(dict(body, more=None)))
    long_form = cbor(dict(body, at=5)).replace(b"\x62at\x05", b"\x62at\x18\x05")
    bad_payload("an integer not in its shortest form", long_form)
    bad_payload("the length of a text not in its shortest form", payload.replace(b"\x63end", b"\x78\x03end"))
    bad_payload("the fields of the body in another order", cbor_map(body, ["node", "offer", "at", "reason"]))
    bad_payload("a field twice", cbor_map(body, ["at", "at", "node", "offer", "reason"]))
    bad_payload("a map of indefinite length", b"\xbf" + payload[1:] + b"\xff")
    bad_payload("a hash of 31 bytes", cbor(dict(body, offer=offered[:31])))
    bad_payload("an instant below zero", payload.replace(cbor(NOW), b"\x20"))
    idle = {"member": "BR", "serial": 1, "validity": lasting(1), "law_pack": offered, "epoch": 1, "upcoming": []}
    idle = cbor(dict(idle, revoked=[], bans=[], grace_ms=0))
    reason = "a grace of 0 that is written and not left out"
    bad(reason, "payload", cbor(envelope("status", alliance, idle, [BR])), "status")
    bad_payload("an instant as a float", payload.replace(cbor(NOW), b"\xfb" + struct.pack(">d", float(NOW))))

    bad_offer("a set out of order", terms={"purposes": [], "to": ["ZA", "IN"], "onward": False})
    bad_offer("a set with a word twice", terms={"purposes": ["research", "research"], "to": [], "onward": False})
    bad_offer("a set of words in alphabetical order", terms={"purposes": ["evaluation", "research"], "to": [], "onward": False})
    bad_offer("a word outside the vocabulary", terms={"purposes": ["fun"], "to": [], "onward": False})
    bad_offer("a code that is assigned to no country", terms={"purposes": [], "to": ["UK"], "onward": False})
    cpu = {"accelerator": "cpu", "count": 1, "memory_mib": 1, "hours": 1}
    bad_offer("two things offered at once", what={"compute": cpu, "model": None})
    bad_offer("longer than an offer may be", "too_large", name="u/" + "x" * 8192)


# MANIFEST-10 to MANIFEST-14: BLAKE3 by hand, because libraries do not show chaining values

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
COLUMNS_AND_DIAGONALS = [
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
]


def compress(chaining, words, counter, length, flags):
    state = list(chaining) + IV[:4] + [counter & 0xFFFFFFFF, counter >> 32, length, flags]
    words = list(words)

    def turn(number, bits):
        return (number >> bits | number << (32 - bits)) & 0xFFFFFFFF

    for _ in range(7):
        for step, (a, b, c, d) in enumerate(COLUMNS_AND_DIAGONALS):
            for word, first, second in ((words[2 * step], 16, 12), (words[2 * step + 1], 8, 7)):
                state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
                state[d] = turn(state[d] ^ state[a], first)
                state[c] = (state[c] + state[d]) & 0xFFFFFFFF
                state[b] = turn(state[b] ^ state[c], second)
        words = [words[at] for at in PERMUTATION]
    return [state[at] ^ state[at + 8] for at in range(8)]


def chaining_value(data, chunk=0, root=False):
    """The chaining value of the subtree over `data` that begins at a chunk, or, with the root flag, its hash."""
    last = ROOT if root else 0
    if len(data) > 1024:
        left = 1024
        while left * 2 < len(data):
            left *= 2
        both = chaining_value(data[:left], chunk) + chaining_value(data[left:], chunk + left // 1024)
        return compress(IV, both, 0, 64, PARENT | last)
    chaining = IV
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
    for at, block in enumerate(blocks):
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END | last if at == len(blocks) - 1 else 0)
        chaining = compress(chaining, struct.unpack("<16I", block.ljust(64, b"\0")), chunk, len(block), flags)
    return chaining


def group_values(data):
    starts = range(0, len(data), GROUP)
    return b"".join(struct.pack("<8I", *chaining_value(data[at : at + GROUP], at // 1024)) for at in starts)


def tensor(name, dtype, shape):
    return {"t": {"n": name, "d": dtype, "s": shape}}


def content(size, seed):
    return blake3.blake3(struct.pack(">Q", seed)).digest(length=size) if size else b""


def segment(kind, size, seed, labels=None):
    data = content(size, seed)
    found = {"b": size, "h": hash_of(data), "k": kind}
    if size > GROUP:
        found["g"] = group_values(data)
    if labels:
        found["l"] = labels
    return found


PARTS = {
    "config.json": [("o", 1, 1)],
    "empty.txt": [],
    "model-00001.safetensors": [
        ("h", 136, 2),
        (tensor("a", "F32", [256, 256]), GROUP, 3),
        (tensor("b", "BF16", [2, 65_537]), GROUP + 4, 4, ["personal", "health"]),
        (tensor("none", "U8", [0, 3]), 0, 5),
        (tensor("c", "U8", [3, GROUP]), 3 * GROUP, 6),
        (tensor("scalar", "F64", []), 8, 7),
    ],
    "weights.gguf": [("o", 2 * GROUP + 1025, 8)],
}


def manifests():
    files, groups, contents = [], [], []
    for path, parts in PARTS.items():
        data = b"".join(content(size, seed) for _, size, seed, *_ in parts)
        segments = [segment(*part) for part in parts]
        sha256 = hashlib.sha256(data).digest()
        files.append({"path": path, "bytes": len(data), "sha256": sha256, "segments": segments})
        contents.append({"path": path, "segments": [{"bytes": size, "seed": seed} for _, size, seed, *_ in parts]})
        offset = 0
        for _, size, *_ in parts:
            for at in range(0, size, GROUP):
                groups.append({"file": path, "offset": offset + at, "bytes": min(GROUP, size - at)})
            offset += size
    manifest = {"version": 1, "artefact": "weights", "labels": ["non_personal"], "files": files}
    encoded = cbor(manifest)
    good = {
        "reason": "opaque files, an empty file, tensors at and around the size of a group, an empty tensor, a scalar, "
        "labels of a tensor",
        "content": contents,
        "manifest": encoded.hex(),
        "id": hash_of(encoded).hex(),
        "labels": ["non_personal", "personal", "health"],
        "parts": [
            {"labels": ["non_personal"], "tensors": 4, "bytes": sum_of(contents) - GROUP - 4},
            {"labels": ["personal", "health"], "tensors": 1, "bytes": GROUP + 4},
        ],
        "groups": groups,
    }
    return [good], list(refused_manifests(manifest))


def labels_of(number):
    words = ["public", "non_personal", "aggregated", "dp", "synthetic", "anonymised"]
    return [word for bit, word in enumerate(words) if number >> bit & 1]


def sum_of(contents):
    return sum(segment["bytes"] for file in contents for segment in file["segments"])


def refused_manifests(manifest):
    def bad(reason, **changes):
        return {"reason": reason, "manifest": cbor(dict(manifest, **changes)).hex()}

    def bad_file(reason, file, **changes):
        files = copy.deepcopy(manifest["files"])
        files[file].update(changes)
        return bad(reason, files=files)

    def bad_segment(reason, file, number, **changes):
        files = copy.deepcopy(manifest["files"])
        files[file]["segments"][number].update(changes)
        return bad(reason, files=files)

    files = manifest["files"]
    config, _, model, weights = files
    values = weights["segments"][0]["g"]
    yield bad("no label", labels=[])
    yield bad("no file", files=[])
    yield bad("another version", version=2)
    yield bad("files out of order", files=files[::-1])
    yield bad_file("a path that leaves the artefact", 0, path="../config.json")
    yield bad_file("a hidden file", 0, path=".config")
    yield bad("two paths that differ in capital letters only", files=[dict(config, path="Config.json"), *files])
    nested = [config, dict(config, path="config.json/x"), *files[1:]]
    yield bad("a file where another needs a directory", files=nested)
    yield bad_file("segments shorter than the file", 0, bytes=2)
    headless = {"segments": model["segments"][1:], "bytes": model["bytes"] - 136}
    yield bad_file("a tensor without a header before it", 2, **headless)
    yield bad_segment("a tensor whose shape gives another length", 2, 1, k=tensor("a", "F16", [256, 256]))
    yield bad_segment("a shape whose product wraps around", 2, 3, k=tensor("none", "U8", [1 << 32, 1 << 32]))
    yield bad_segment("two tensors of one name", 2, 1, k=tensor("c", "F32", [256, 256]))
    yield bad_segment("chaining values that do not give the hash", 3, 0, g=bytes([values[0] ^ 1]) + values[1:])
    yield bad_segment("a chaining value too few", 3, 0, g=values[:-32])
    yield bad_segment("chaining values for a segment of one group", 2, 1, g=bytes(32))
    yield bad_segment("an empty segment with the hash of something", 2, 3, h=bytes(32))
    yield bad_segment("an empty list of labels", 0, 0, l=[])
    tensors = [dict(segment(tensor(f"t{at}", "U8", [1]), 1, at), l=labels_of(at + 2)) for at in range(17)]
    many = dict(model, segments=[model["segments"][0], *tensors], bytes=136 + len(tensors))
    yield bad("more sets of labels than one artefact may have", files=[many])
    yield bad_segment("an entry that is empty and not left out", 0, 0, g=b"")


# LEDGER-5 to LEDGER-7: the tree of RFC 6962, and checkpoints


def sha256(data):
    return hashlib.sha256(data).digest()


def root(leaves):
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0])
    left = 1
    while left * 2 < len(leaves):
        left *= 2
    return sha256(b"\1" + root(leaves[:left]) + root(leaves[left:]))


def checkpoint(leaves):
    origin = f"alliance/{NODE.public.hex()}"
    body = f"{origin}\n{len(leaves)}\n{base64.b64encode(root(leaves)).decode()}\n"
    key_id = sha256(origin.encode() + b"\n\x01" + NODE.public)[:4]
    signature = base64.b64encode(key_id + NODE.secret.sign(body.encode())).decode()
    note = f"{body}\n\N{EM DASH} {origin} {signature}\n"
    return {"size": len(leaves), "root": root(leaves).hex(), "checkpoint": note}


# MESH-20, MESH-21, MESH-30


def message(topic, statement):
    length = struct.pack(">Q", len(topic))
    named = blake3.blake3(b"alliance/gossip-id/1" + length + topic.encode() + statement).digest(length=20)
    return {"statement": statement.hex(), "id": named.hex()}


def digest(count):
    ids = sorted(hash_of(bytes([number])) for number in range(count))
    return {"ids": [id.hex() for id in ids], "digest": hash_of(b"".join(ids)).hex()}


# TRAINING-1 to TRAINING-6


def in_toto(statement, key):
    """A statement in its one form, and its envelope as a line."""
    payload = json.dumps(statement, separators=(",", ":"), ensure_ascii=False).encode()
    kind = b"application/vnd.in-toto+json"
    signature = key.secret.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    text = lambda data: base64.b64encode(data).decode()
    signatures = [{"sig": text(signature), "keyid": key.public.hex()}]
    line = {"payload": text(payload), "payloadType": kind.decode(), "signatures": signatures}
    return payload, json.dumps(line, separators=(",", ":"))


def artefact(number):
    digest = {"sha256": (bytes([number]) * 32).hex(), "blake3": (bytes([number + 1]) * 32).hex()}
    return {"name": f"usp/model-{number}", "digest": digest}


def instant(seconds):
    return datetime.datetime.fromtimestamp(NOW // 1000 + seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def training_step(alliance, key, number, process, parents, labels, begins):
    dependencies = [
        {"name": "train.py", "digest": {"sha256": "22" * 32}, "annotations": {"role": "code"}},
        {"name": "git+https://example.org/\u0434", "digest": {"gitCommit": "ab" * 20}, "annotations": {"role": "code"}},
        *({**artefact(parent), "annotations": {"role": "parent"}} for parent in parents),
        {
            "name": "usp/data",
            "digest": {"blake3": "33" * 32},
            "annotations": {"role": "data", "labels": labels, **({"subjects": ["BR"]} if "personal" in labels else {})},
        },
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [artefact(number), {"name": "sub/model.safetensors", "digest": {"sha256": "44" * 32}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "alliance:training-step/v1",
                "externalParameters": {"process": process},
                "internalParameters": {"alliance": alliance.hex(), "country": "BR"},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": f"alliance:node/{key.public.hex()}"},
                "metadata": {"startedOn": instant(begins), "finishedOn": instant(begins + 3600)},
            },
        },
    }


def training(alliance, accreditation):
    """Two steps of the node of the vectors, and what they make together."""
    steps = [
        training_step(alliance, NODE, 3, "fine_tuning", [1], ["public", "personal"], 7200),
        training_step(alliance, NODE, 1, "pre_training", [], ["public"], 0),
    ]
    signed = [in_toto(step, NODE) for step in steps]
    found = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [artefact(3)],
        "predicateType": "alliance:training/v1",
        "predicate": {
            "alliance": alliance.hex(),
            "madeOn": instant(20_000),
            "trainedIn": ["BR"],
            "labels": ["public", "personal"],
            "subjects": ["BR"],
            "steps": [
                {
                    "digest": {"sha256": sha256(payload).hex()},
                    "node": NODE.public.hex(),
                    "organisation": "usp",
                    "accreditation": base64.b64encode(accreditation).decode(),
                }
                for payload, _ in signed
            ],
        },
    }

    def bundle(change=lambda found: None, lines=None):
        changed = copy.deepcopy(found)
        change(changed)
        lines = [line for _, line in signed] if lines is None else lines
        return "".join(line + "\n" for line in [in_toto(changed, IMPORTER)[1], *lines])

    def claims(name, value):
        return lambda found: found["predicate"].update({name: value})

    def names(at, name, value):
        return lambda found: found["predicate"]["steps"][at].update({name: value})

    one, two = (line for _, line in signed)
    refused = [
        ("a country that no step was in", bundle(claims("trainedIn", ["BR", "IN"]))),
        ("a label less", bundle(claims("labels", ["public"]))),
        ("people whom no data is about", bundle(claims("subjects", []))),
        ("another alliance", bundle(claims("alliance", "00" * 32))),
        ("another product", bundle(lambda found: found.update(subject=[artefact(9)]))),
        ("another node than the step's", bundle(names(0, "node", IMPORTER.public.hex()))),
        ("another step than the one that follows", bundle(names(1, "digest", {"sha256": "00" * 32}))),
        ("a step that is missing", bundle(lambda found: found["predicate"]["steps"].pop(), [one])),
        ("steps in another order", bundle(lines=[two, one])),
        ("a step that leads nowhere", bundle(lambda found: found.update(subject=[artefact(1)]))),
        ("a member more", bundle(claims("more", 1))),
        ("white space", bundle().replace('{"payload"', '{ "payload"', 1).replace("\n", "\n\n", 1)),
        ("no line feed at the end", bundle()[:-1]),
        ("a signature of another text", bundle().replace('"sig":"', '"sig":"AAAA', 1)),
    ]
    good = {"product": artefact(3)["digest"], "trained_in": ["BR"], "labels": ["public", "personal"], "steps": 2}
    return (
        [{"reason": "a step", "line": line} for _, line in signed],
        [{"reason": "two steps at home", "text": bundle(), **good}],
        [{"reason": reason, "text": text} for reason, text in refused],
    )


def write(name, about, **lists):
    text = json.dumps({"about": about, **lists}, indent=1, ensure_ascii=True)
    (FOLDER / name).write_text(text + "\n")


def main():
    alliance, accredited, offered = valid_statements()
    refused_statements(alliance, offered)
    about = (
        "Signed statements (01). The seed of a key is one byte, 32 times. `body` is for reading, bytes in hexadecimal."
    )
    write("statements.json", about, valid=VALID, refused=REFUSED)

    sample = bytes(range(251)) * 12
    assert struct.pack("<8I", *chaining_value(sample, root=True)) == hash_of(sample)
    about = (
        "Manifests (02). The bytes of a segment are the extended output of BLAKE3 over its seed (8 bytes, big endian)."
    )
    good, bad = manifests()
    write("manifest.json", about, valid=good, refused=bad)

    leaves = [bytes([number]) * number for number in range(9)]
    trees = [checkpoint(leaves[:count]) for count in range(len(leaves) + 1)]
    about = "Trees over the first entries, and their checkpoints (05). The seed of the key is 0a, 32 times."
    write("ledger.json", about, key=NODE.public.hex(), entries=[leaf.hex() for leaf in leaves], trees=trees)

    steps, attested, bad = training(alliance, accredited)
    about = "Where models were trained (07). Steps are of the key 0a, 32 times."
    write("training.json", about, alliance=alliance.hex(), steps=steps, valid=attested, refused=bad)

    topic = f"alliance/{alliance.hex()}/statements/1"
    write(
        "mesh.json",
        "Names of the mesh (06).",
        alliance=alliance.hex(),
        protocol=f"/alliance/{alliance.hex()[:16]}/mesh/1",
        topic=topic,
        messages=[message(topic, statement) for statement in (b"", accredited)],
        digests=[digest(count) for count in (0, 1, 3)],
    )


if __name__ == "__main__":
    main()
