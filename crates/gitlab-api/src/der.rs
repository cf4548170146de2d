//! Just enough DER to tell who issued a certificate.

use rustls_pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;

/// Longest chain that is followed.
const MAX_CHAIN: usize = 16;

/// Issuer and subject of a certificate, as DER; `None` if it is no certificate.
pub(crate) fn names(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, certificate, _) = element(certificate)?;
    let (inner_tag, mut body, _) = element(certificate)?;
    if (tag, inner_tag) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    if body.first() == Some(&EXPLICIT_VERSION) {
        body = element(body)?.2;
    }
    let body = element(body)?.2; // serial number
    let body = element(body)?.2; // signature algorithm
    let (_, issuer, body) = element(body)?;
    let body = element(body)?.2; // validity
    let (_, subject, _) = element(body)?;
    Some((issuer, subject))
}

/// The chain from the leaf (the first of `presented`) to a root, following issuer names through what the server presented
/// and the known roots. Ends where an issuer is not known.
pub(crate) fn complete_chain(
    presented: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    let mut chain: Vec<CertificateDer<'static>> = Vec::new();
    let mut next = presented.first();
    while let Some(certificate) = next.filter(|_| chain.len() < MAX_CHAIN) {
        chain.push(certificate.clone());
        let Some((issuer, subject)) = names(certificate) else { break };
        if issuer == subject {
            break;
        }
        next = presented
            .iter()
            .chain(roots)
            .filter(|candidate| !chain.contains(candidate))
            .find(|candidate| names(candidate).is_some_and(|(_, subject)| subject == issuer));
    }
    chain
}

/// Tag, content and what follows of the first element.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    fn authority(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (params, KeyPair::generate().unwrap())
    }

    fn three() -> [CertificateDer<'static>; 3] {
        let (root_params, root_key) = authority("root");
        let root = root_params.self_signed(&root_key).unwrap().der().clone();
        let root_issuer = Issuer::new(root_params, root_key);
        let (middle_params, middle_key) = authority("middle");
        let middle = middle_params.signed_by(&middle_key, &root_issuer).unwrap().der().clone();
        let middle_issuer = Issuer::new(middle_params, middle_key);
        let leaf = CertificateParams::new(vec!["gitlab.test".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &middle_issuer).unwrap().der().clone();
        [leaf, middle, root]
    }

    #[test]
    fn a_chain_is_completed_by_the_root_that_the_server_does_not_send() {
        let [leaf, middle, root] = three();
        let (_, _, stranger) = three().into();
        let chain = complete_chain(&[leaf.clone(), middle.clone()], std::slice::from_ref(&root));
        assert_eq!(chain, [leaf.clone(), middle.clone(), root]);
        assert_eq!(complete_chain(std::slice::from_ref(&leaf), &[stranger]), [leaf]);
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        assert_eq!(names(b""), None);
        assert_eq!(names(b"certificate"), None);
        assert_eq!(names(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        let [leaf, ..] = three();
        for cut in 0..leaf.len() {
            assert_eq!(names(&leaf[..cut]), None, "{cut}");
        }
    }
}
