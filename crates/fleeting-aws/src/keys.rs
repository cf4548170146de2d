//! Keys: the pair with which one logs in, and the one that decrypts Windows passwords.

use aws_lc_rs::rsa::{Pkcs1PrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleeting::{ExposeSecret, GroupError, SecretString};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

/// A key pair for SSH. A made one lives in memory only.
pub(crate) struct Login {
    pub(crate) key_pem: SecretString,
    /// In OpenSSH's public form.
    pub(crate) public: String,
}

// === impl Login ===

impl Login {
    /// A fresh pair. Ed25519, because EC2 Instance Connect takes it and making one takes no time.
    pub(crate) fn fresh() -> Result<Self, GroupError> {
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)
            .map_err(|error| GroupError::transient("making a key pair", &error))?;
        let pem = key
            .to_openssh(LineEnding::LF)
            .map_err(|error| GroupError::transient("writing a private key", &error))?;
        Ok(Self { key_pem: SecretString::from(pem.as_str()), public: public(&key)? })
    }

    /// The configured key.
    pub(crate) fn configured(key_pem: &SecretString) -> Result<Self, GroupError> {
        let key = russh::keys::decode_secret_key(key_pem.expose_secret(), None).map_err(|error| {
            let message = format!("connector_config.key_path: unusable private key: {error}");
            GroupError::Configuration { message }
        })?;
        Ok(Self { public: public(&key)?, key_pem: key_pem.clone() })
    }
}

/// True for RSA keys in a form that can decrypt.
pub(crate) fn can_decrypt(key_pem: &SecretString) -> bool {
    decrypting_key(key_pem).is_some()
}

/// Decrypts the password data of a Windows instance (RSA, PKCS#1 v1.5, base64).
pub(crate) fn decrypt(key_pem: &SecretString, password_data: &str) -> Result<SecretString, String> {
    let key = decrypting_key(key_pem)
        .ok_or("connector_config.key_path must be the RSA private key of the launch template's key pair")?;
    let data = STANDARD
        .decode(password_data.split_whitespace().collect::<String>())
        .map_err(|error| format!("the password data is not base64: {error}"))?;
    let mut room = vec![0; key.min_output_size()];
    let clear = key.decrypt(&data, &mut room).map_err(|_| {
        "connector_config.key_path is not the private key of the launch template's key pair".to_owned()
    })?;
    let text = std::str::from_utf8(clear).map_err(|_| "the password is not text".to_owned())?;
    Ok(SecretString::from(text))
}

fn decrypting_key(key_pem: &SecretString) -> Option<Pkcs1PrivateDecryptingKey> {
    let pem = key_pem.expose_secret();
    let body = |label: &str| {
        let rest = pem.split_once(&format!("-----BEGIN {label}-----"))?.1;
        let text = rest.split_once(&format!("-----END {label}-----"))?.0;
        STANDARD.decode(text.split_whitespace().collect::<String>()).ok()
    };
    // EC2 hands out PKCS#1.
    let der = body("PRIVATE KEY").or_else(|| body("RSA PRIVATE KEY").map(|pkcs1| pkcs8(&pkcs1)))?;
    Pkcs1PrivateDecryptingKey::new(PrivateDecryptingKey::from_pkcs8(&der).ok()?).ok()
}

/// Wraps a PKCS#1 key as PKCS#8: version 0, the algorithm rsaEncryption without parameters, the key.
fn pkcs8(pkcs1: &[u8]) -> Vec<u8> {
    const RSA: [u8; 15] =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let mut inner = vec![0x02, 0x01, 0x00];
    inner.extend_from_slice(&RSA);
    inner.extend(tagged(0x04, pkcs1));
    tagged(0x30, &inner)
}

/// One DER value.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = vec![tag];
    match length.as_slice() {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(0x7f));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

fn public(key: &PrivateKey) -> Result<String, GroupError> {
    key.public_key().to_openssh().map_err(|error| GroupError::transient("writing a public key", &error))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeySize, Pkcs1PublicEncryptingKey};

    use super::*;

    #[test]
    fn a_password_is_decrypted_with_a_key_in_either_form() {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let public = Pkcs1PublicEncryptingKey::new(key.public_key()).unwrap();
        let mut room = vec![0; public.ciphertext_size()];
        let secret = STANDARD.encode(&*public.encrypt(b"P@ss w0rd", &mut room).unwrap());
        let der = AsDer::<Pkcs8V1Der>::as_der(&key).unwrap();
        // The key itself begins after the head whose form the function above writes.
        let pkcs1 = &der.as_ref()[26..];
        assert_eq!(pkcs8(pkcs1), der.as_ref());
        for (label, bytes) in [("PRIVATE KEY", der.as_ref()), ("RSA PRIVATE KEY", pkcs1)] {
            let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes));
            let pem = SecretString::from(pem);
            assert!(can_decrypt(&pem));
            assert_eq!(decrypt(&pem, &secret).unwrap().expose_secret(), "P@ss w0rd");
        }
    }

    #[test]
    fn another_key_is_named_as_the_reason() {
        let fresh = Login::fresh().unwrap();
        assert!(!can_decrypt(&fresh.key_pem));
        assert!(decrypt(&fresh.key_pem, "AAAA").unwrap_err().contains("connector_config.key_path"));
    }

    #[test]
    fn a_fresh_pair_can_be_read_again() {
        let fresh = Login::fresh().unwrap();
        assert!(fresh.public.starts_with("ssh-ed25519 "));
        assert_eq!(Login::configured(&fresh.key_pem).unwrap().public, fresh.public);
    }
}
