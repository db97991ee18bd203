//! `syncline key`: a fresh key, as the configuration takes it.

use super::{Failure, print};
use anyhow::{Context, anyhow};
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

/// Make a key for the configuration
///
/// HS256 is one secret that your application and the server share: `syncline key --alg HS256 >> syncline.toml`.
///
/// EdDSA and ES256 are pairs: your application signs with the private key, and the server needs only the public one. The
/// private key is printed first, then the entry for syncline.toml.
#[derive(Debug, clap::Args)]
pub(super) struct Key {
    /// The algorithm
    #[arg(long, value_enum, default_value = "EdDSA")]
    alg: KeyAlgorithm,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KeyAlgorithm {
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "HS256")]
    Hs256,
}

impl Key {
    pub(super) fn run(self) -> Result<(), Failure> {
        let kid = format!("key-{}", URL_SAFE_NO_PAD.encode(random::<6>()?));
        let text = match self.alg {
            KeyAlgorithm::Hs256 => secret(&kid, &URL_SAFE_NO_PAD.encode(random::<32>()?)),
            KeyAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("cannot make a key"))?;
                let private = pair.to_pkcs8v1().map_err(|_| anyhow!("cannot encode the key"))?;
                key_pair(&kid, "EdDSA", private.as_ref(), &public_der(pair.public_key())?)
            }
            KeyAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
                let pair = pair.map_err(|_| anyhow!("cannot make a key"))?;
                let private = pair.to_pkcs8v1().map_err(|_| anyhow!("cannot encode the key"))?;
                key_pair(&kid, "ES256", private.as_ref(), &public_der(pair.public_key())?)
            }
        };
        Ok(print(&text).context("cannot write to standard output")?)
    }
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(bytes)
}

fn public_der<'a>(key: &impl AsDer<PublicKeyX509Der<'a>>) -> Result<Vec<u8>, Failure> {
    let der = key.as_der().map_err(|_| anyhow!("cannot encode the key"))?;
    Ok(der.as_ref().to_vec())
}

fn secret(kid: &str, secret: &str) -> String {
    format!(
        "\n# Your application signs tokens with the same secret. Keep it out of version control.\n\
         [[auth.keys]]\nkid = \"{kid}\"\nalg = \"HS256\"\nsecret = \"{secret}\""
    )
}

fn key_pair(kid: &str, algorithm: &str, private: &[u8], public: &[u8]) -> String {
    let private = pem("PRIVATE KEY", private);
    let public = pem("PUBLIC KEY", public);
    format!(
        "# Your application signs tokens with this private key, and names it by kid \"{kid}\". The server does not need it.\n\
         {private}\n\n# The entry for syncline.toml:\n\
         [[auth.keys]]\nkid = \"{kid}\"\nalg = \"{algorithm}\"\npublic_key = \"\"\"\n{public}\n\"\"\""
    )
}

/// RFC 7468: base64 in lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = vec![format!("-----BEGIN {label}-----")];
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        lines.push(line.to_owned());
        rest = after;
    }
    lines.push(format!("-----END {label}-----"));
    lines.join("\n")
}
