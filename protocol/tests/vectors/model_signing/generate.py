#!/usr/bin/env python3
"""Writes the vectors, with `cryptography` and `model_signing` and none of our code: keys as OpenSSL writes them, and
bundles over the small model that `model()` makes. Needs model-signing 1.1.1 and pyOpenSSL. ECDSA is random here, so that
each run gives other signatures. Run in the folder of the vectors."""
import base64, hashlib, json, pathlib, subprocess, sys, tempfile
from cryptography.hazmat.primitives import hashes, serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

SCALAR = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721  # RFC 6979, A.2.5
FILES = {"config.json": b"{}\n", "model.safetensors": b"weights", "sub-a": b"one", "sub/x": b"two",
         "sub/\u0434\u0430.txt": b"", "sub.txt": b"three"}
GIT = [".git", ".gitattributes", ".github", ".gitignore"]
TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://model_signing/signature/v1.0"
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"

def private(key, form=s.PrivateFormat.PKCS8):
    return key.private_bytes(s.Encoding.PEM, form, s.NoEncryption())

def public(key):
    return key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)

def compressed(key):
    point = key.public_key().public_bytes(s.Encoding.X962, s.PublicFormat.CompressedPoint)
    der = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    body = base64.b64encode(der).decode()
    lines = [body[i:i + 64] for i in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""]).encode()

def pae(kind, payload):
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)

def statement(resources):
    root = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
    return {"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "mdl", "digest": {"sha256": root}}],
            "predicateType": PREDICATE,
            "predicate": {"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False,
                                            "ignore_paths": GIT + ["model.sig"]}, "resources": resources}}

def bundle(key, payload, material, **extra):
    sig = key.sign(pae(TYPE, payload), ec.ECDSA(hashes.SHA256()))
    return {"mediaType": MEDIA, "verificationMaterial": {"publicKey": material, "tlogEntries": []},
            "dsseEnvelope": {"payload": base64.b64encode(payload).decode(), "payloadType": TYPE,
                             "signatures": [{"sig": base64.b64encode(sig).decode(), **extra}]}}

def model(at):
    for name, content in FILES.items():
        path = at / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (at / ".gitignore").write_bytes(b"not signed\n")

def main():
    here = pathlib.Path(".")
    key, p384 = ec.derive_private_key(SCALAR, ec.SECP256R1()), ec.derive_private_key(SCALAR, ec.SECP384R1())
    (here / "key.pem").write_bytes(private(key))
    (here / "key.sec1.pem").write_bytes(private(key, s.PrivateFormat.TraditionalOpenSSL))
    (here / "key.pub").write_bytes(public(key))
    (here / "key.compressed.pub").write_bytes(compressed(key))
    hint = hashlib.sha256(public(key)).hexdigest()
    (here / "key.hint").write_text(hint + "\n")
    (here / "p384.pem").write_bytes(private(p384))
    (here / "p384.pub").write_bytes(public(p384))
    (here / "ed25519.pub").write_bytes(public(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))))
    node = Envelope(b'{"a":1}', TYPE, {})
    node.sign(CryptoSigner(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([7] * 32))))
    (here / "ed25519.dsse.json").write_text(json.dumps(node.to_dict()))
    resources = [{"name": n, "algorithm": "sha256", "digest": hashlib.sha256(FILES[n]).hexdigest()} for n in sorted(FILES)]
    payload = json.dumps(statement(resources), separators=(",", ":"), ensure_ascii=False).encode()
    (here / "hand.sig.json").write_text(json.dumps(bundle(key, payload, {"hint": hint}, keyid="")))
    legacy = {"rawBytes": base64.b64encode(public(key)).decode(), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    (here / "legacy.sig.json").write_text(json.dumps(bundle(key, payload, legacy, keyid=None)))
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder) / "mdl"
        at.mkdir()
        model(at)
        tool = pathlib.Path(sys.executable).parent / "model_signing"
        subprocess.run([tool, "sign", "key", at, "--private_key", here / "key.pem", "--signature", at / "model.sig"], check=True)
        (here / "tool.sig.json").write_bytes((at / "model.sig").read_bytes())
        for made in ["hand", "legacy", "tool"]:
            (at / "model.sig").write_bytes((here / f"{made}.sig.json").read_bytes())
            subprocess.run([tool, "verify", "key", at, "--public_key", here / "key.pub", "--signature", at / "model.sig"], check=True)

main()
