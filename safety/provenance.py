"""Every file that sample.py writes says who made it, in metadata that is signed (C2PA).

C2PA calls the metadata a manifest. Ours holds one action, "created", with the kind of source (a model
alone, or a model and given pictures), the version of the model and the prompt. A real signer's certificate
comes from an authority on C2PA's trust list. Ours is made on this machine, so a reader finds the file
unchanged and its signer unknown ("valid", not "trusted"). A change to the file breaks the signature; whoever
removes the metadata leaves a file that says nothing. The c2pa package is an extra; without it files stay
unsigned.

C2PA specification 2, https://c2pa.org. Kinds of source: https://cv.iptc.org/newscodes/digitalsourcetype.
"""
from config import BadInput

import datetime
import json
import os
import sys
from pathlib import Path

EXTRA = "pip install -r requirements-extra.txt"
UNSIGNED = f"unsigned means: without C2PA metadata; to sign: {EXTRA}"
KEYS = Path.home() / ".config/sora-small"
GENERATOR = "Sora, small"


def certificate(cert, key):
    """Makes a development certificate (cert.pem) and its key (key.pem), readable by their owner only.

    C2PA refuses a certificate that signed itself, so a root signs ours; the root's key is thrown away."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    our_key = ec.generate_private_key(ec.SECP256R1())
    root_key = ec.generate_private_key(ec.SECP256R1())
    chain = signer_certificate(our_key, root_key) + root_certificate(root_key)
    key_text = our_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

    cert.parent.mkdir(0o700, parents=True, exist_ok=True)
    write_private(key, key_text)
    write_private(cert, chain)


def signer_certificate(our_key, root_key):
    """The certificate that signs files, signed by the root → PEM bytes."""
    from cryptography import x509

    # C2PA wants a purpose in the certificate, and takes that of signed mail.
    purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
    builder = start_certificate("development signer", our_key, root_key, is_root=False)
    return finish_certificate(builder.add_extension(purpose, critical=False), root_key)


def root_certificate(root_key):
    """The certificate of the root, signed by itself → PEM bytes."""
    builder = start_certificate("development root", root_key, root_key, is_root=True)
    return finish_certificate(builder, root_key)


def start_certificate(name, key, root_key, is_root):
    """What both certificates have in common: names, ten years, and what the key may be used for."""
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        subject_name=distinguished_name(name),
        issuer_name=distinguished_name("development root"),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=3650),
    )

    # The root signs certificates and nothing else; ours signs files and nothing else.
    usage = x509.KeyUsage(
        digital_signature=not is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_root,
        crl_sign=is_root,
        encipher_only=False,
        decipher_only=False,
    )
    subject = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(subject, critical=False)
    return builder.add_extension(authority, critical=False)


def finish_certificate(builder, root_key):
    """Signs a certificate with the root's key → PEM bytes."""
    from cryptography.hazmat.primitives import hashes, serialization

    return builder.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def distinguished_name(common_name):
    from cryptography import x509

    organization = x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, GENERATOR)
    return x509.Name([organization, x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def write_private(path, content):
    """Writes a new file that only its owner can read, from the first byte on. Raises OSError if it exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)


def signer(folder):
    """What `sign` signs with: a folder's cert.pem and key.pem (ES256), made if neither is there.

    None without the extras. Raises BadInput for keys that cannot be used."""
    try:
        import c2pa
        import cryptography  # noqa: F401
    except ImportError:
        return None

    cert = Path(folder) / "cert.pem"
    key = Path(folder) / "key.pem"
    try:
        if not cert.exists() and not key.exists():
            certificate(cert, key)
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", cert.read_bytes(), key.read_bytes(), None))
    except (OSError, c2pa.C2paError) as error:
        reason = str(error)[:120]
        raise BadInput(
            f"--keys {folder}: expected cert.pem and an ES256 key.pem, or a folder to make them in ({reason})"
        ) from error


def sign(path, signer, version, prompt="", given=False):
    """Signs a file in place → "signed", or "unsigned" without the extras (signer is None); see UNSIGNED.

    version: of the model that made it. given: whether it was also made from given pictures. Raises BadInput
    for a file that cannot be signed; it is left as it was."""
    if signer is None:
        return "unsigned"
    import c2pa

    # A thumbnail can be larger than our files.
    context = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
    manifest = make_manifest(Path(path).name, version, prompt, given)

    # Beside the file first, so that a failure leaves the file alone.
    signed = Path(f"{path}.signed{Path(path).suffix}")
    try:
        with c2pa.Builder(manifest, context) as builder:
            builder.sign_file(path, signed, signer)
        os.replace(signed, path)
    except (OSError, c2pa.C2paError) as error:
        signed.unlink(missing_ok=True)
        raise BadInput(f"{path} is written, but could not be signed ({str(error)[:120]})") from error
    return "signed"


def make_manifest(title, version, prompt, given):
    """What a file says of itself, as the c2pa package takes it."""
    kind = "compositeWithTrainedAlgorithmicMedia" if given else "trainedAlgorithmicMedia"
    agent = {"name": GENERATOR, "version": version}
    action = {
        "action": "c2pa.created",
        "digitalSourceType": f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}",
        "softwareAgent": agent,
        "parameters": {"prompt": prompt},
    }
    return {
        "claim_generator_info": [agent],
        "title": title,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


def verify(path):
    """Reads a file's signature → (state, who signed it, what it says of itself). Raises BadInput.

    state: "trusted" (unchanged, by a signer on the list), "valid" (unchanged, by anybody), "changed" or
    "missing"; the other two are None for a file without C2PA metadata."""
    try:
        import c2pa
    except ImportError as error:
        raise BadInput(f"C2PA metadata cannot be read: {EXTRA}") from error

    try:
        with c2pa.Reader(path) as reader:
            report = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return "missing", None, None
    except c2pa.C2paError as error:
        raise BadInput(f"{path}: not a file whose C2PA metadata can be read ({str(error)[:100]})") from error

    # Any other state is reported as changed: the signature does not fit the file, or cannot be relied on.
    states = {"Trusted": "trusted", "Valid": "valid"}
    state = states.get(report.get("validation_state"), "changed")
    manifest = report["manifests"].get(report.get("active_manifest"), {})
    signature = manifest.get("signature_info", {})
    who = f"{signature.get('issuer')}, {signature.get('common_name')}"
    return state, who, first_action(manifest)


def first_action(manifest):
    """The first thing that was done to the file, according to its manifest; None if it does not say."""
    for assertion in manifest.get("assertions", []):
        if assertion["label"].startswith("c2pa.actions"):
            actions = assertion["data"].get("actions")
            return actions[0] if actions else None
    return None


def log_skip(prompts, folder):
    """What --unsafe-skip-checks lets through goes to stderr and to unsafe.log beside the output.

    Raises BadInput where the log cannot be written."""
    now = datetime.datetime.now()
    line = f"{now:%Y-%m-%d %H:%M:%S} --unsafe-skip-checks: no prompt and no frame is checked: {prompts}"
    print(f"warning: {line}", file=sys.stderr)

    path = Path(folder) / "unsafe.log"
    try:
        with open(path, "a") as log:
            log.write(line + "\n")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); checks are not skipped without a log"
        ) from error


if __name__ == "__main__":
    print("what a signed file says of itself:")
    print(json.dumps(make_manifest("clip.gif", "0123abcd", "a red circle", given=False), indent=2))
