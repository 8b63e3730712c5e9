//! A signature of an image: a PKCS #7 message around the image's digest (Microsoft, "Windows Authenticode Portable Executable
//! Signature Format"), checked as edk2's `AuthenticodeVerify` checks it: with RSA, and without regard to the time.

use alloc::boxed::Box;
use alloc::vec::Vec;

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use sha2::Digest as _;
use x509_cert::der::asn1::{ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Decode, Encode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::spki::AlgorithmIdentifierRef;
use x509_cert::{Certificate, Version};

use crate::digest::Digest256;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// SPC_INDIRECT_DATA_OBJID.
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// More than any chain has: each is tried as the issuer of each.
const MAX_CERTIFICATES: usize = 16;
/// More than any message has: reading a set takes time by the square of its members.
const MAX_MESSAGE: usize = 64 << 10;

/// A signature that cannot be checked, or does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a PKCS #7 message around a digest.
    #[error("a signature of the image cannot be read: {0}")]
    Damaged(&'static str),
    /// An algorithm that is not looked at here.
    #[error("a signature of the image is made with {0}: SHA-256 and RSA are known")]
    Algorithm(&'static str),
    /// It is of another image, or was not made by the certificate that it names.
    #[error("a signature of the image does not hold: {0}")]
    Invalid(&'static str),
}

/// A signature that holds, and the certificates that lead from whoever made it towards a root.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The signer's certificate, then those of its issuers that the message carries and that may issue certificates.
    chain: Vec<Certificate>,
    /// The same with all that may have signed one of them, whether they were allowed to or not.
    signers: Vec<Certificate>,
    /// All certificates of the message.
    carried: Vec<Certificate>,
}

impl Signature {
    /// Checks a message against the Authenticode SHA-256 of the image that it is on.
    pub fn check(message: &[u8], image: &Digest256) -> Result<Self, SignatureError> {
        if message.len() > MAX_MESSAGE {
            return Err(SignatureError::Damaged("it is larger than 64 KiB"));
        }
        let signed = signed_data(message).ok_or(SignatureError::Damaged("it is no PKCS #7 message"))?;
        check_image(&signed, image)?;
        let signer = match signed.signer_infos.0.as_slice() {
            [signer] => signer,
            _ => return Err(SignatureError::Damaged("it has not exactly one signer")),
        };
        let carried = certificates(&signed)?;
        let certificate = carried.iter().find(|certificate| is_of(certificate, &signer.sid));
        let certificate = certificate.ok_or(SignatureError::Damaged("the certificate of its signer is not in it"))?;
        check_signer(&signed, signer, certificate)?;
        let chain = chain(certificate, &carried, is_issued_by);
        let signers = self::chain(certificate, &carried, may_be_signed_by);
        Ok(Self { chain, signers, carried })
    }

    /// Whether this certificate (DER) is the signer's, that of an issuer, or one that issued one of them: by this an image is allowed.
    pub fn leads_to(&self, anchor: &[u8]) -> bool {
        leads(&self.chain, anchor, is_issued_by)
    }

    /// The same without regard to who may issue certificates, and also where that cannot be judged: by this an image is forbidden.
    pub fn may_lead_to(&self, anchor: &[u8]) -> bool {
        Certificate::from_der(anchor).is_err() || leads(&self.signers, anchor, may_be_signed_by)
    }

    /// SHA-256 of what each certificate of the message signs.
    pub fn carried_digests(&self) -> Vec<Digest256> {
        self.carried.iter().filter_map(signed_digest).collect()
    }
}

/// Whether the second certificate made the first.
type Rule = fn(&Certificate, &Certificate) -> bool;

/// A certificate, then all of these that lead on from it.
fn chain(first: &Certificate, carried: &[Certificate], rule: Rule) -> Vec<Certificate> {
    let mut chain = Vec::from([first.clone()]);
    let mut next = 0;
    while let Some(certificate) = chain.get(next).cloned() {
        let is_new = |issuer: &&Certificate| !chain.contains(issuer) && rule(&certificate, issuer);
        let issuers: Vec<_> = carried.iter().filter(is_new).cloned().collect();
        chain.extend(issuers);
        next = next.saturating_add(1);
    }
    chain
}

fn leads(chain: &[Certificate], anchor: &[u8], rule: Rule) -> bool {
    let Ok(anchor) = Certificate::from_der(anchor) else { return false };
    chain.iter().any(|certificate| *certificate == anchor || rule(certificate, &anchor))
}

/// SHA-256 of what a certificate (DER) signs: by this it is revoked.
pub fn certificate_digest(certificate: &[u8]) -> Option<Digest256> {
    signed_digest(&Certificate::from_der(certificate).ok()?)
}

fn signed_digest(certificate: &Certificate) -> Option<Digest256> {
    Some(Digest256::of(&certificate.tbs_certificate.to_der().ok()?))
}

fn signed_data(message: &[u8]) -> Option<SignedData> {
    // Padding may follow.
    let content = ContentInfo::decode(&mut SliceReader::new(message).ok()?).ok()?;
    (content.content_type == SIGNED_DATA).then(|| content.content.decode_as().ok())?
}

fn certificates(signed: &SignedData) -> Result<Vec<Certificate>, SignatureError> {
    let all = signed.certificates.iter().flat_map(|set| set.0.iter());
    let certificates: Vec<_> = all
        .filter_map(|choice| match choice {
            CertificateChoices::Certificate(certificate) => Some(certificate.clone()),
            CertificateChoices::Other(_) => None,
        })
        .collect();
    match certificates.len() {
        0..=MAX_CERTIFICATES => Ok(certificates),
        _ => Err(SignatureError::Damaged("it has more than 16 certificates")),
    }
}

/// SpcIndirectDataContent: what it points to, and the digest.
fn check_image(signed: &SignedData, image: &Digest256) -> Result<(), SignatureError> {
    const DAMAGED: SignatureError = SignatureError::Damaged("there is no image digest in it");
    let content =
        signed.encap_content_info.econtent.as_ref().filter(|content| {
            signed.encap_content_info.econtent_type == INDIRECT_DATA && content.value().len() < 1 << 16
        });
    let mut reader = content.and_then(|content| SliceReader::new(content.value()).ok()).ok_or(DAMAGED)?;
    let (algorithm, digest) = (|| {
        x509_cert::der::AnyRef::decode(&mut reader)?;
        reader.sequence(|info| Ok((AlgorithmIdentifierRef::decode(info)?.oid, OctetStringRef::decode(info)?)))
    })()
    .map_err(|_| DAMAGED)?;
    if algorithm != SHA256 {
        return Err(SignatureError::Algorithm("another digest of the image"));
    }
    (digest.as_bytes() == image.0).then_some(()).ok_or(SignatureError::Invalid("it is of another image"))
}

fn is_of(certificate: &Certificate, signer: &SignerIdentifier) -> bool {
    let certificate = &certificate.tbs_certificate;
    match signer {
        SignerIdentifier::IssuerAndSerialNumber(id) => {
            id.issuer == certificate.issuer && id.serial_number == certificate.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(_) => false,
    }
}

/// RFC 2315, 9.3: the attributes hold the digest of the content, without its tag and length, and are what is signed.
fn check_signer(signed: &SignedData, signer: &SignerInfo, by: &Certificate) -> Result<(), SignatureError> {
    let hash = Hash::of_digest(&signer.digest_alg.oid).ok_or(SignatureError::Algorithm("another digest"))?;
    let content = signed.encap_content_info.econtent.as_ref().map(|content| content.value()).unwrap_or_default();
    let attributes = signer.signed_attrs.as_ref().ok_or(SignatureError::Damaged("it signs no attributes"))?;
    let digest = attributes.iter().find(|attribute| attribute.oid == MESSAGE_DIGEST);
    let digest = digest.and_then(|attribute| attribute.values.get(0)).map(|value| value.value());
    if digest != Some(&hash.digest(content)) {
        return Err(SignatureError::Invalid("its content is not what was signed"));
    }
    let attributes = attributes.to_der().map_err(|_| SignatureError::Damaged("its attributes"))?;
    let holds = verify(by, hash, &attributes, signer.signature.as_bytes());
    (holds == Some(true)).then_some(()).ok_or(SignatureError::Invalid("its certificate did not make it"))
}

fn is_issued_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    may_issue(issuer) && is_signed_by(certificate, issuer)
}

/// Whether a certificate is that of a CA (RFC 5280, 4.2.1.3 and 4.2.1.9; OpenSSL, with which firmware checks chains, takes a root of
/// version 1 too). The lengths of paths are not looked at.
fn may_issue(issuer: &Certificate) -> bool {
    let issuer = &issuer.tbs_certificate;
    let signs_certificates = match issuer.get::<KeyUsage>() {
        Ok(usage) => usage.is_none_or(|(_, usage)| usage.key_cert_sign()),
        Err(_) => false,
    };
    let is_ca = match issuer.get::<BasicConstraints>() {
        Ok(Some((_, constraints))) => constraints.ca,
        Ok(None) => issuer.version == Version::V1 && issuer.issuer == issuer.subject,
        Err(_) => false,
    };
    signs_certificates && is_ca
}

/// By name and by signature.
fn is_signed_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    signed_by(certificate, issuer) == Some(true)
}

/// By name, and unless the signature says otherwise.
fn may_be_signed_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    signed_by(certificate, issuer) != Some(false)
}

/// Whether a certificate has the name of its issuer and a signature that is the issuer's; `None` where the name fits and the
/// signature is of a kind that is not known here.
fn signed_by(certificate: &Certificate, issuer: &Certificate) -> Option<bool> {
    if certificate.tbs_certificate.issuer != issuer.tbs_certificate.subject {
        return Some(false);
    }
    let hash = Hash::of_signature(&certificate.signature_algorithm.oid)?;
    let signed = certificate.tbs_certificate.to_der().ok()?;
    verify(issuer, hash, &signed, certificate.signature.as_bytes()?)
}

/// `None` where the key is of a kind that is not known here.
fn verify(by: &Certificate, hash: Hash, signed: &[u8], signature: &[u8]) -> Option<bool> {
    let key = &by.tbs_certificate.subject_public_key_info;
    let bytes = key.subject_public_key.as_bytes().filter(|_| key.algorithm.oid == RSA)?;
    let key = RsaPublicKey::from_pkcs1_der(bytes).ok()?;
    let digest = hash.digest(signed);
    let scheme = Pkcs1v15Sign { hash_len: Some(digest.len()), prefix: hash.prefix() };
    Some(key.verify(scheme, &digest, signature).is_ok())
}

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn of_digest(oid: &ObjectIdentifier) -> Option<Self> {
        const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
        const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
        [(SHA256, Self::Sha256), (SHA384, Self::Sha384), (SHA512, Self::Sha512)]
            .into_iter()
            .find_map(|(known, hash)| (*oid == known).then_some(hash))
    }

    /// Of sha256WithRSAEncryption and its likes.
    fn of_signature(oid: &ObjectIdentifier) -> Option<Self> {
        const WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
        const WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
        const WITH_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
        [(WITH_SHA256, Self::Sha256), (WITH_SHA384, Self::Sha384), (WITH_SHA512, Self::Sha512)]
            .into_iter()
            .find_map(|(known, hash)| (*oid == known).then_some(hash))
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => sha2::Sha256::digest(data).to_vec(),
            Self::Sha384 => sha2::Sha384::digest(data).to_vec(),
            Self::Sha512 => sha2::Sha512::digest(data).to_vec(),
        }
    }

    /// DigestInfo up to the digest (RFC 8017, 9.2, note 1).
    fn prefix(self) -> Box<[u8]> {
        let (outer, algorithm, size) = match self {
            Self::Sha256 => (0x31, 1, 0x20),
            Self::Sha384 => (0x41, 2, 0x30),
            Self::Sha512 => (0x51, 3, 0x40),
        };
        let oid = [0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, algorithm, 0x05, 0x00];
        [&[0x30, outer][..], &oid, &[0x04, size]].concat().into()
    }
}
