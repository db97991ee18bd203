//! The keys that tokens are checked with, by `kid`; each for exactly one algorithm.

use crate::server::config::{Algorithm, AuthConfig, ConfigError, KeyConfig, KeyMaterial};
use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt, path::Path};

/// A shorter secret can be guessed; RFC 7518, 3.2.
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// A shorter modulus is not safe; RFC 7518, 3.3.
const RSA_BYTES_MIN: usize = 2048 / 8;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// None is configured.
    #[error(
        "no key is configured, so no token could be checked: `syncline key --alg HS256 >> syncline.toml` makes one; \
         to try things out without tokens, `syncline serve --dev`"
    )]
    None,
    /// The configuration that names them cannot be read again.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("key '{kid}': {path}: {error}")]
    Unreadable {
        /// Which key; `jwks_file` for the set.
        kid: String,
        /// Which file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A key is not what its algorithm needs.
    #[error("key '{kid}': {text}")]
    Unusable {
        /// Which key.
        kid: String,
        /// What is wrong and what to do.
        text: &'static str,
    },
    /// The JWKS file is not one.
    #[error("auth.jwks_file: {0}")]
    Set(&'static str),
    /// Two keys have the same name.
    #[error("key '{0}' is configured twice; every key needs a 'kid' of its own")]
    Twice(String),
}

/// All keys.
#[derive(Debug)]
pub(super) struct Keys {
    by_kid: BTreeMap<String, Key>,
}

/// One key and its one algorithm.
pub(super) struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl Key {
    pub(super) fn algorithm(&self) -> jsonwebtoken::Algorithm {
        match self.algorithm {
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

impl Keys {
    /// Reads every configured key; at least one.
    pub(super) fn read(config: &AuthConfig) -> Result<Self, KeyError> {
        let mut by_kid = BTreeMap::new();
        let mut add = |kid: String, key: Key| match by_kid.insert(kid.clone(), key) {
            None => Ok(()),
            Some(_) => Err(KeyError::Twice(kid)),
        };
        for key in &config.keys {
            add(key.kid.clone(), read(key)?)?;
        }
        if let Some(path) = &config.jwks_file {
            for (kid, key) in read_set(path)? {
                add(kid, key)?;
            }
        }
        if by_kid.is_empty() {
            Err(KeyError::None)
        } else {
            Ok(Self { by_kid })
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_kid.len()
    }

    /// The key that a token names; the only key, for a token that names none.
    pub(super) fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match kid {
            Some(kid) => self.by_kid.get(kid),
            None if self.by_kid.len() == 1 => self.by_kid.values().next(),
            None => None,
        }
    }
}

/// The secret or PEM of a key. White space at the end of a file is an editor's, not the secret's.
pub fn read_material(config: &KeyConfig) -> Result<String, KeyError> {
    match &config.material {
        KeyMaterial::Inline(text) => Ok(text.clone()),
        KeyMaterial::File(path) => read_file(&config.kid, path).map(|text| text.trim_end().to_owned()),
    }
}

fn read(config: &KeyConfig) -> Result<Key, KeyError> {
    let text = read_material(config)?;
    let algorithm = config.algorithm;
    let unusable = |text| KeyError::Unusable {
        kid: config.kid.clone(),
        text,
    };
    let decoding = match algorithm {
        Algorithm::Hs256 => Ok(DecodingKey::from_secret(text.as_bytes())),
        Algorithm::Rs256 => DecodingKey::from_rsa_pem(text.as_bytes()),
        Algorithm::Es256 => DecodingKey::from_ec_pem(text.as_bytes()),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(text.as_bytes()),
    };
    let decoding = decoding.map_err(|_| unusable("not a public key of this algorithm in PEM; see `syncline key`"))?;
    check_strength(algorithm, &decoding).map_err(unusable)?;
    Ok(Key { algorithm, decoding })
}

fn read_file(kid: &str, path: &Path) -> Result<String, KeyError> {
    std::fs::read_to_string(path).map_err(|error| KeyError::Unreadable {
        kid: kid.to_owned(),
        path: path.display().to_string(),
        error,
    })
}

/// Reads a JSON Web Key Set. Keys for other uses or algorithms are passed over, as issuers publish all sorts in one set.
fn read_set(path: &Path) -> Result<Vec<(String, Key)>, KeyError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let text = read_file("jwks_file", path)?;
    let set: Set = serde_json::from_str(&text).map_err(|_| KeyError::Set("not a JSON object with a list 'keys'"))?;
    let mut keys = Vec::new();
    for value in set.keys {
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
            continue;
        };
        let Some(algorithm) = algorithm(&jwk) else { continue };
        let kid = jwk
            .common
            .key_id
            .clone()
            .ok_or(KeyError::Set("every key needs a 'kid'"))?;
        let unusable = |text| KeyError::Unusable { kid: kid.clone(), text };
        let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| unusable("its parts are not base64url"))?;
        check_strength(algorithm, &decoding).map_err(unusable)?;
        keys.push((kid, Key { algorithm, decoding }));
    }
    if keys.is_empty() {
        return Err(KeyError::Set(
            "no key in it is for HS256, RS256, ES256 or EdDSA signatures",
        ));
    }
    Ok(keys)
}

/// The algorithm that a JWK is for, if it is one of ours: what it says, or else the only one that its type allows.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => (Algorithm::Hs256, KeyAlgorithm::HS256),
        AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::Es256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDsa, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    jwk.common
        .key_algorithm
        .is_none_or(|said| said == name)
        .then_some(algorithm)
}

/// Weak keys, keys of another curve and private keys are told at the start, not by refusing every token later.
fn check_strength(algorithm: Algorithm, key: &DecodingKey) -> Result<(), &'static str> {
    let bytes = key.try_get_as_bytes().unwrap_or_default();
    match algorithm {
        Algorithm::Hs256 if bytes.len() < SECRET_BYTES_MIN => {
            Err("a secret has at least 32 bytes; `syncline key --alg HS256` makes one")
        }
        Algorithm::Es256 if bytes.len() != 65 || bytes[0] != 4 => Err("not an uncompressed public key on P-256"),
        Algorithm::EdDsa if bytes.len() != 32 => Err("not an Ed25519 public key"),
        Algorithm::Rs256 => {
            let jwk = Jwk::from_decoding_key(key, None).map_err(|_| "not an RSA public key")?;
            let AlgorithmParameters::RSA(parts) = jwk.algorithm else {
                return Err("not an RSA public key");
            };
            // Four characters of base64 hold three bytes.
            let is_strong = parts.n.len() * 3 / 4 >= RSA_BYTES_MIN;
            if is_strong {
                Ok(())
            } else {
                Err("an RSA key has at least 2048 bits")
            }
        }
        Algorithm::Hs256 | Algorithm::Es256 | Algorithm::EdDsa => Ok(()),
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.algorithm.name())
    }
}
