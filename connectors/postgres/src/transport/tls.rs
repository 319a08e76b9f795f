//! TLS by rustls: what is checked about the server's certificate, and what is said when it is not right.
//!
//! - What libpq checks in a mode is checked here in that mode, and the signature of the handshake always.
//! - The crypto is ring's, named here: no default for the whole process is set or used.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::endpoint::HostPort;
use crate::endpoint::encryption::{Check, Encryption, Identity, Roots};
use crate::error::{Error, Result, TlsError};

/// Takes any certificate, as `sslmode=require` says: what is sent is hidden from listeners, not from the one who answers.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

/// Takes a certificate of the right authority for whatever name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

/// What a connection is made with.
pub(super) fn client_config(encryption: &Encryption) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(encryption.check(), &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows both versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(Identity { certificate, key }) = &encryption.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("sslcert", certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable("sslkey", key))?;
    let config = builder.with_client_auth_cert(chain, private);
    config.map_err(|source| Error::TlsIdentity {
        certificate: certificate.clone(),
        key: key.clone(),
        source,
    })
}

fn verifier(
    check: Check<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>> {
    let by_roots = |roots| {
        let store = Arc::new(root_store(roots)?);
        let built =
            WebPkiServerVerifier::builder_with_provider(store, Arc::clone(provider)).build();
        Ok::<_, Error>(built.expect("there are roots, and no revocation lists"))
    };
    Ok(match check {
        Check::Nothing => Arc::new(AnyServer(Arc::clone(provider))),
        Check::Authority(roots) => Arc::new(AnyName(by_roots(roots)?)),
        Check::AuthorityAndName(roots) => by_roots(roots)?,
    })
}

/// The certificates of authorities; at least one.
fn root_store(roots: &Roots) -> Result<RootCertStore> {
    const PARAMETER: &str = "sslrootcert";
    let (certificates, file) = match roots {
        Roots::File(file) => (certificates(PARAMETER, file)?, file.clone()),
        Roots::System => (
            rustls_native_certs::load_native_certs().certs,
            PathBuf::from("system"),
        ),
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(Error::TlsFileEmpty {
            parameter: PARAMETER,
            file,
        });
    }
    Ok(store)
}

/// The certificates of a PEM file; at least one.
fn certificates(parameter: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(parameter, file))?;
    if certificates.is_empty() {
        return Err(Error::TlsFileEmpty {
            parameter,
            file: file.to_owned(),
        });
    }
    Ok(certificates)
}

fn unreadable(
    parameter: &'static str,
    file: &Path,
) -> impl FnOnce(rustls::pki_types::pem::Error) -> Error {
    let file = file.to_owned();
    move |source| Error::TlsFile {
        parameter,
        file,
        source: Box::new(source),
    }
}

/// That a connection cannot be as safe as it should.
pub(super) fn refused(host: &HostPort, source: TlsError) -> Error {
    Error::Tls {
        host: host.to_string(),
        source: Box::new(source),
    }
}

/// The error, or what TLS says if that is behind it. A server judges our certificate only after its own part of the
/// handshake: its refusal may come where an answer to the login was to be read.
pub(super) fn explained(error: Error, host: &HostPort) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
        if let Some(tls) = inner {
            return refused(host, TlsError::from(tls.clone()));
        }
        cause = error.source();
    }
    error
}

// === impl AnyServer ===

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

// === impl AnyName ===

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let checked =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // The name comes last: everything else is right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
