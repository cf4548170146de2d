//! Certificates for tests.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

/// Somebody who signs certificates for 127.0.0.1 and the name `docker`.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
    home: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "harbour");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key), home: tempfile::tempdir().unwrap() }
    }

    /// A folder with `ca.pem`, `cert.pem` and `key.pem` for one side of a connection.
    pub(crate) fn folder(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> PathBuf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names =
            vec![SanType::IpAddress([127, 0, 0, 1].into()), SanType::DnsName("docker".try_into().unwrap())];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let folder = self.home.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let files =
            [("ca.pem", self.pem.clone()), ("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())];
        for (file, text) in files {
            std::fs::write(folder.join(file), text).unwrap();
        }
        folder
    }

    /// The folder of all of them.
    pub(crate) fn home(&self) -> &std::path::Path {
        self.home.path()
    }
}
