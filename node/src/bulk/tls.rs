//! TLS 1.3 for the bulk endpoint: both sides present a certificate that proves the Ed25519 key of their node.
//!
//! The certificate is that of the libp2p TLS specification: self-signed by a key of its own, with an extension in which
//! the node's key vouches for it. Nothing else is believed: no authority, no name, no other type of key. Secrets are never
//! logged and sessions are never resumed, so that every connection proves its keys afresh and never starts with early data.

use std::sync::Arc;

use alliance_protocol::key::{PublicKey, SecretKey};
use libp2p::identity;
use libp2p_tls::certificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, NoKeyLog, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite},
        ring,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};

/// What the two ends agree to speak; an end that speaks something else is refused in the handshake.
pub(super) const ALPN: &[u8] = b"alliance-bulk/1";

/// Why the node's certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key is not one of libp2p's.
    #[error("the node's key cannot be used for TLS")]
    Key(#[source] identity::DecodingError),
    /// The certificate could not be signed.
    #[error("the certificate cannot be made")]
    Certificate(#[source] certificate::GenError),
    /// The TLS library refused the certificate or the settings.
    #[error("the TLS settings are refused")]
    Settings(#[source] rustls::Error),
}

/// The certificate of this node, made once for the life of the endpoint, and how to use it on both sides.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: Arc<SingleCertAndKey>,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    pub(super) fn new(key: &SecretKey) -> Result<Self, TlsError> {
        let mut seed = key.to_seed();
        let keypair = identity::Keypair::ed25519_from_bytes(seed.as_mut_slice()).map_err(TlsError::Key)?;
        let (certificate, secret) = certificate::generate(&keypair).map_err(TlsError::Certificate)?;
        let secret = aws_lc_rs::sign::any_ecdsa_type(&secret).map_err(TlsError::Settings)?;
        let certified = CertifiedKey::new(vec![certificate], secret);
        Ok(Self { certificate: Arc::new(SingleCertAndKey::from(certified)), provider: Arc::new(crypto_provider()) })
    }

    /// The side that exports: whoever connects must prove some Ed25519 key.
    pub(super) fn server(&self) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Settings)?
            .with_client_cert_verifier(Arc::new(KeyVerifier { expected: None }))
            .with_cert_resolver(Arc::clone(&self.certificate) as Arc<dyn rustls::server::ResolvesServerCert>);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.key_log = Arc::new(NoKeyLog);
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    /// The side that imports: whoever answers must prove exactly the key `peer`.
    pub(super) fn client(&self, peer: PublicKey) -> Result<ClientConfig, TlsError> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Settings)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(KeyVerifier { expected: Some(peer) }))
            .with_client_cert_resolver(Arc::clone(&self.certificate) as Arc<dyn rustls::client::ResolvesClientCert>);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.key_log = Arc::new(NoKeyLog);
        config.enable_early_data = false;
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// What encrypts packets, and how keys are agreed on.
///
/// AES-128-GCM first: it is the fastest where the processor has AES, which is where tensors are. Two libraries have it, and
/// which one is faster depends on the processor: AWS-LC where it has AVX-512, ring elsewhere (packets of 1400 bytes on a
/// Zen 3: 0.22 s/GB against 0.36). Everything else is AWS-LC's; its order of key exchanges has the hybrid with ML-KEM first.
#[must_use]
pub fn crypto_provider() -> CryptoProvider {
    let first =
        if has_avx512() { cipher_suite::TLS13_AES_128_GCM_SHA256 } else { ring::cipher_suite::TLS13_AES_128_GCM_SHA256 };
    CryptoProvider {
        cipher_suites: vec![first, cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256],
        ..aws_lc_rs::default_provider()
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("vaes")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

/// The key that a certificate proves.
///
/// # Errors
/// It is not a certificate of libp2p's kind, does not verify, or vouches for a key other than Ed25519.
pub(super) fn key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, rustls::Error> {
    let peer = certificate::parse(certificate)?.peer_id();
    // The id of an Ed25519 key is the key itself in libp2p's encoding, under the identity hash.
    identity::PublicKey::try_decode_protobuf(peer.as_ref().digest())
        .ok()
        .and_then(|key| key.try_into_ed25519().ok())
        .filter(|key| identity::PublicKey::from(key.clone()).to_peer_id() == peer)
        .map(|key| PublicKey(key.to_bytes()))
        .ok_or(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
}

/// Believes certificates of libp2p's kind with an Ed25519 key, and where one is expected, with that key only.
#[derive(Debug)]
struct KeyVerifier {
    expected: Option<PublicKey>,
}

impl KeyVerifier {
    fn check(&self, certificate: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !more.is_empty() {
            return Err(rustls::Error::General("exactly one certificate must be presented".to_owned()));
        }
        let key = key_of(certificate)?;
        match self.expected {
            Some(expected) if expected != key => {
                Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

fn refuse_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
}

/// The one scheme in which libp2p's certificates are made.
fn schemes() -> Vec<SignatureScheme> {
    vec![SignatureScheme::ECDSA_NISTP256_SHA256]
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_proves_the_key_of_the_node() {
        let key = SecretKey::from_seed(&[7; 32]);
        let identity = identity::Keypair::ed25519_from_bytes(*key.to_seed()).expect("a key");
        let (certificate, _) = certificate::generate(&identity).expect("a certificate");
        assert_eq!(key_of(&certificate).expect("proved"), key.public());

        let mut forged = certificate.to_vec();
        let at = forged.windows(32).position(|window| window == key.public().0).expect("the key stands in it");
        forged[at] ^= 1;
        assert!(key_of(&CertificateDer::from(forged)).is_err(), "a key that did not vouch for it");
        assert!(key_of(&CertificateDer::from(vec![0x30, 0x00])).is_err());
    }

    #[test]
    fn settings_keep_no_secrets_and_prefer_the_hybrid() {
        let identity = Identity::new(&SecretKey::from_seed(&[7; 32])).expect("an identity");
        let (server, client) = (
            identity.server().expect("settings"),
            identity.client(SecretKey::from_seed(&[8; 32]).public()).expect("settings"),
        );
        assert_eq!((&server.alpn_protocols, &client.alpn_protocols), (&vec![ALPN.to_vec()], &vec![ALPN.to_vec()]));
        assert!(!server.key_log.will_log("CLIENT_RANDOM") && !client.key_log.will_log("CLIENT_RANDOM"));
        assert_eq!((server.max_early_data_size, server.send_tls13_tickets, client.enable_early_data), (0, 0, false));
        let groups = &client.crypto_provider().kx_groups;
        assert_eq!(groups.first().map(|group| group.name()), Some(rustls::NamedGroup::X25519MLKEM768));
        let suites = &client.crypto_provider().cipher_suites;
        assert_eq!(suites.first().map(|suite| suite.suite()), Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
    }
}
