//! The certificate of one run of the server.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;

use crate::server::StartError;

/// A certificate for `host` that signs itself, as PEM for GitLab and as the server's configuration. Clients need TLS 1.2 or 1.3.
pub(crate) fn certificate(host: &str) -> Result<(String, Arc<ServerConfig>), StartError> {
    let making = |source| StartError::Certificate { host: host.to_owned(), source };
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "Drover");
    params.distinguished_name.push(DnType::CommonName, host);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let name = match host.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(host.try_into().map_err(making)?),
    };
    params.subject_alt_names.push(name);
    let key = KeyPair::generate().map_err(making)?;
    let certificate = params.self_signed(&key).map_err(making)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key)
        })
        .map_err(StartError::Tls)?;
    Ok((certificate.pem(), Arc::new(config)))
}
