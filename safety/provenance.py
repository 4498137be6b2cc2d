"""C2PA."""
import datetime
import json
import os
import sys
from pathlib import Path

from config import BadInput

EXTRA = "pip install -r requirements-extra.txt"
KEYS = Path.home() / ".config/sora-small"


# C2PA
def certificate(cert, key):
    """Makes a development certificate and its key, readable by their owner only."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    now, named = datetime.datetime.now(datetime.UTC), lambda who: x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Sora, small"), x509.NameAttribute(x509.NameOID.COMMON_NAME, who)])
    secrets, chain = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)], []
    for ours, who, is_root in ((secrets[0], "development signer", False), (secrets[1], "development root", True)):  # a certificate that signed itself is refused, so a root signs ours and is thrown away
        made = x509.CertificateBuilder().subject_name(named(who)).issuer_name(named("development root")).public_key(ours.public_key()).serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=3650)).add_extension(x509.BasicConstraints(is_root, None), True)
        made = made.add_extension(x509.KeyUsage(not is_root, False, False, False, False, is_root, is_root, False, False), True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(ours.public_key()), False).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(secrets[1].public_key()), False)
        if not is_root:
            made = made.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        chain.append(made.sign(secrets[1], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    cert.parent.mkdir(0o700, parents=True, exist_ok=True)
    for path, content in ((key, secrets[0].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())), (cert, b"".join(chain))):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)


def signer(folder):
    """A folder's cert.pem and key.pem (ES256), made if neither is there → what `sign` signs with; None without the extras. Raises BadInput."""
    try:
        import c2pa
        import cryptography  # noqa: F401
    except ImportError:
        return None
    cert, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
    try:
        if not cert.exists() and not key.exists():
            certificate(cert, key)
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", cert.read_bytes(), key.read_bytes(), None))
    except (OSError, c2pa.C2paError) as error:
        raise BadInput(f"--keys {folder}: expected cert.pem and an ES256 key.pem, or a folder to make them in ({str(error)[:120]})")


def sign(path, signer, version, prompt="", given=False):
    """Signs a file in place: created by our model of this version, for this prompt, from given pictures or from none → a line that says so, or why not."""
    if signer is None:
        return f"unsigned, without C2PA metadata: {EXTRA}"
    import c2pa
    kind = "compositeWithTrainedAlgorithmicMedia" if given else "trainedAlgorithmicMedia"  # by a model and from given pictures, or by a model alone
    action = {"action": "c2pa.created", "digitalSourceType": f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}", "softwareAgent": {"name": "Sora, small", "version": version}, "parameters": {"prompt": prompt}}
    manifest = {"claim_generator_info": [{"name": "Sora, small", "version": version}], "title": Path(path).name, "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]}
    signed = Path(f"{path}.signed{Path(path).suffix}")
    try:
        with c2pa.Builder(manifest, c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})) as builder:  # a thumbnail can be larger than our files
            builder.sign_file(path, signed, signer)
        os.replace(signed, path)
    except (OSError, c2pa.C2paError) as error:
        signed.unlink(missing_ok=True)
        raise BadInput(f"{path} is written, but could not be signed ({str(error)[:120]})")
    return "signed"


def verify(path):
    """A file → ("trusted" | "valid" | "changed" | "missing", who signed it, what it says of itself). Raises BadInput."""
    try:
        import c2pa
    except ImportError:
        raise BadInput(f"C2PA metadata cannot be read: {EXTRA}")
    try:
        with c2pa.Reader(path) as reader:
            report = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return "missing", None, None
    except c2pa.C2paError as error:
        raise BadInput(f"{path}: not a file whose C2PA metadata can be read ({str(error)[:100]})")
    manifest = report["manifests"].get(report.get("active_manifest"), {})
    actions = next((a["data"].get("actions") for a in manifest.get("assertions", []) if a["label"].startswith("c2pa.actions")), None)
    who = manifest.get("signature_info", {})
    return {"Trusted": "trusted", "Valid": "valid"}.get(report.get("validation_state"), "changed"), f"{who.get('issuer')}, {who.get('common_name')}", actions[0] if actions else None


def log_skip(prompts, folder):
    """What --unsafe-skip-checks let through goes to stderr and to unsafe.log beside the output."""
    line = f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S} --unsafe-skip-checks: no prompt and no frame is checked: {prompts}"
    print(f"warning: {line}", file=sys.stderr)
    try:
        with open(Path(folder) / "unsafe.log", "a") as log:
            log.write(line + "\n")
    except OSError as error:
        raise BadInput(f"{Path(folder) / 'unsafe.log'}: cannot be written ({error.strerror}); checks are not skipped without a log")


