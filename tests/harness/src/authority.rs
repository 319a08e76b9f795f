//! A private certificate authority, and what it issues, as PEM files.
//!
//! - Everything is valid for long, unless its end is given.
//! - Keys are made anew by each process; nobody outside of a test trusts the authority.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::{Error, Result};

/// A certificate authority that writes what it issues into a directory.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    file: PathBuf,
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Key and certificate in one file, as MongoDB and Kafka want them.
    pub both: PathBuf,
}

/// With what a server does TLS.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The server's certificate.
    pub issued: Issued,
    /// The certificate of the authority whose clients it takes.
    pub authority: PathBuf,
}

// === impl Authority ===

impl Authority {
    /// An authority with its own certificate in `directory`, in a file of its name.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let file = directory.join(format!("{name}.pem"));
        write(&file, &issuer.pem())?;
        Ok(Self {
            issuer,
            directory: directory.to_owned(),
            file,
        })
    }

    /// Its own certificate.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A certificate of a server with these names.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn server(&self, names: &[&str]) -> Result<ServerTls> {
        self.server_until(names, date_time_ymd(4000, 1, 1).into())
    }

    /// One that is valid until then.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn server_until(&self, names: &[&str], end: SystemTime) -> Result<ServerTls> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let file = crate::unique("server");
        let mut params = CertificateParams::new(names)?;
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = end.into();
        params.distinguished_name.push(DnType::CommonName, &*file);
        // Both: a mongod is also a client, its own and of its replica set.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok(ServerTls {
            issued: self.issue(&file, &params)?,
            authority: self.file.clone(),
        })
    }

    /// A certificate of a client: its common name is the user's.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn client(&self, user: &str) -> Result<Issued> {
        self.issue(user, &client(user))
    }

    /// Another certificate of the same client, in files of other names.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn client_again(&self, user: &str) -> Result<Issued> {
        self.issue(&crate::unique(user), &client(user))
    }

    fn issue(&self, file: &str, params: &CertificateParams) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        let path = |kind: &str| self.directory.join(format!("{file}{kind}.pem"));
        let issued = Issued {
            certificate: path(""),
            key: path("-key"),
            both: path("-both"),
        };
        write(&issued.certificate, &certificate)?;
        write(&issued.key, &key)?;
        write(&issued.both, &format!("{key}{certificate}"))?;
        Ok(issued)
    }
}

fn client(user: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(Error::io(format!("writing {}", file.display())))
}
