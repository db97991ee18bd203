//! Tables of tokens, keys and attacks on both, each with what has to come of it.

use super::*;
use crate::server::config::{Algorithm, AuthConfig, KeyConfig, KeyMaterial};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use serde_json::{Value, json};
use std::sync::LazyLock;
use syncline_protocol::native::Access;

const NOW_MS: u64 = 1_800_000_000_000;
const NOW: u64 = NOW_MS / 1_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

static ES256: LazyLock<KeyPair> = LazyLock::new(|| pair(&PKCS_ECDSA_P256_SHA256));
static EDDSA: LazyLock<KeyPair> = LazyLock::new(|| pair(&PKCS_ED25519));
static RS256: LazyLock<KeyPair> = LazyLock::new(|| pair(&PKCS_RSA_SHA256));

fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).expect("a key pair")
}

fn key(kid: &str, algorithm: Algorithm, text: &str) -> KeyConfig {
    KeyConfig {
        kid: kid.into(),
        algorithm,
        material: KeyMaterial::Inline(text.into()),
    }
}

fn config(keys: Vec<KeyConfig>) -> Config {
    let mut config = Config::default();
    config.auth.keys = keys;
    config
}

/// One key of each algorithm.
fn all_keys() -> Vec<KeyConfig> {
    vec![
        key("hs", Algorithm::Hs256, SECRET),
        key("rs", Algorithm::Rs256, &RS256.public_key_pem()),
        key("es", Algorithm::Es256, &ES256.public_key_pem()),
        key("ed", Algorithm::EdDsa, &EDDSA.public_key_pem()),
    ]
}

fn claims() -> Value {
    json!({ "sub": "ann", "exp": NOW + 60, "docs": { "notes/*": "write", "**": "read" } })
}

/// Signs what a real issuer would.
fn sign(algorithm: jsonwebtoken::Algorithm, kid: Option<&str>, claims: &Value) -> String {
    use jsonwebtoken::Algorithm as A;
    let key = match algorithm {
        A::HS256 | A::HS384 | A::HS512 => EncodingKey::from_secret(SECRET.as_bytes()),
        A::RS256 | A::RS384 | A::PS256 => EncodingKey::from_rsa_pem(RS256.serialize_pem().as_bytes()).expect("a key"),
        A::ES256 => EncodingKey::from_ec_pem(ES256.serialize_pem().as_bytes()).expect("a key"),
        A::EdDSA => EncodingKey::from_ed_pem(EDDSA.serialize_pem().as_bytes()).expect("a key"),
        other => panic!("no key for {other:?}"),
    };
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, &key).expect("a token")
}

/// Signs any header and payload with HMAC-SHA256, as an attacker would who knows `secret`.
fn forge(header: &str, payload: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let signature = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn verify(config: &Config, token: &str) -> Result<Grant, AuthError> {
    Verifier::new(config).expect("usable keys").admit(Some(token), NOW_MS)
}

#[test]
fn tokens_of_all_four_algorithms_are_admitted_by_their_key() {
    use jsonwebtoken::Algorithm as A;
    let config = config(all_keys());
    for (kid, algorithm) in [("hs", A::HS256), ("rs", A::RS256), ("es", A::ES256), ("ed", A::EdDSA)] {
        let grant = verify(&config, &sign(algorithm, Some(kid), &claims())).expect(kid);
        assert_eq!(&*grant.subject.0, "ann");
        assert_eq!(grant.expires_at_ms, Some(NOW_MS + 60_000));
        assert_eq!(grant.access(&"notes/1".parse().expect("an id")), Some(Access::Write));
        assert_eq!(grant.access(&"other".parse().expect("an id")), Some(Access::Read));
    }
}

#[test]
fn a_token_without_kid_is_for_the_only_key() {
    let token = sign(jsonwebtoken::Algorithm::HS256, None, &claims());
    assert!(verify(&config(vec![key("only", Algorithm::Hs256, SECRET)]), &token).is_ok());
    assert_eq!(verify(&config(all_keys()), &token), Err(AuthError::UnknownKey));
}

#[test]
fn tokens_without_a_signature_are_refused() {
    let config = config(all_keys());
    let payload = claims().to_string();
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = format!(r#"{{"alg":"{alg}","kid":"hs"}}"#);
        let unsigned = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(&header),
            URL_SAFE_NO_PAD.encode(&payload)
        );
        assert_eq!(verify(&config, &unsigned), Err(AuthError::Malformed), "{alg}");
        let signed = forge(&header, &payload, SECRET.as_bytes());
        assert_eq!(verify(&config, &signed), Err(AuthError::Malformed), "{alg}, signed");
    }
}

#[test]
fn a_key_is_for_one_algorithm() {
    use jsonwebtoken::Algorithm as A;
    let config = config(all_keys());
    let payload = claims().to_string();
    let check = |name: &str, token: &str, expected: AuthError| {
        assert_eq!(verify(&config, token), Err(expected), "{name}");
    };
    let hmac_as = |kid: &str, secret: &[u8]| forge(&format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), &payload, secret);
    check(
        "RS key as HMAC secret",
        &hmac_as("rs", RS256.public_key_pem().as_bytes()),
        AuthError::Algorithm,
    );
    check(
        "RS DER as HMAC secret",
        &hmac_as("rs", &RS256.subject_public_key_info()),
        AuthError::Algorithm,
    );
    check(
        "ES key as HMAC secret",
        &hmac_as("es", ES256.public_key_pem().as_bytes()),
        AuthError::Algorithm,
    );
    check(
        "Ed key as HMAC secret",
        &hmac_as("ed", EDDSA.public_key_raw()),
        AuthError::Algorithm,
    );
    let called = forge(
        r#"{"alg":"RS256","kid":"rs"}"#,
        &payload,
        RS256.public_key_pem().as_bytes(),
    );
    check("HMAC called RS256", &called, AuthError::Signature);
    check(
        "another HMAC",
        &sign(A::HS384, Some("hs"), &claims()),
        AuthError::Algorithm,
    );
    check(
        "another RSA hash",
        &sign(A::RS384, Some("rs"), &claims()),
        AuthError::Algorithm,
    );
    check(
        "another RSA padding",
        &sign(A::PS256, Some("rs"), &claims()),
        AuthError::Algorithm,
    );
    check(
        "the key of another kid",
        &sign(A::ES256, Some("ed"), &claims()),
        AuthError::Algorithm,
    );
    check("a wrong secret", &hmac_as("hs", b"wrong"), AuthError::Signature);
    check("an empty secret", &hmac_as("hs", b""), AuthError::Signature);
}

#[test]
fn headers_that_ask_for_more_or_say_it_twice_are_refused() {
    let config = config(all_keys());
    for header in [
        r#"{"alg":"HS256","kid":"hs","crit":["exp"],"exp":1}"#,
        r#"{"alg":"RS256","alg":"HS256","kid":"hs"}"#,
    ] {
        let token = forge(header, &claims().to_string(), SECRET.as_bytes());
        assert_eq!(verify(&config, &token), Err(AuthError::Malformed), "{header}");
    }
}

#[test]
fn kid_tricks_are_refused() {
    let config = config(all_keys());
    let check = |kid: Value, secret: &[u8], expected: AuthError| {
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        assert_eq!(
            verify(&config, &forge(&header, &claims().to_string(), secret)),
            Err(expected),
            "{kid}"
        );
    };
    check(json!("unknown"), SECRET.as_bytes(), AuthError::UnknownKey);
    check(json!(""), SECRET.as_bytes(), AuthError::UnknownKey);
    check(json!("HS"), SECRET.as_bytes(), AuthError::UnknownKey);
    check(json!("hs "), SECRET.as_bytes(), AuthError::UnknownKey);
    check(json!("hs\u{0}"), SECRET.as_bytes(), AuthError::UnknownKey);
    check(json!("../../../../dev/null"), b"", AuthError::UnknownKey);
    check(json!("x' UNION SELECT 'secret"), b"secret", AuthError::UnknownKey);
    check(json!("https://evil.com/jwks.json"), b"", AuthError::UnknownKey);
    check(json!(null), SECRET.as_bytes(), AuthError::UnknownKey);
    check(json!(["hs"]), SECRET.as_bytes(), AuthError::Malformed);
    check(json!(0), SECRET.as_bytes(), AuthError::Malformed);
    let own = b"attacker's own secret, 32 bytes!";
    let jwk = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(own) });
    let header = json!({ "alg": "HS256", "kid": "hs", "jwk": jwk, "jku": "https://evil.com/jwks.json" }).to_string();
    let token = forge(&header, &claims().to_string(), own);
    assert_eq!(
        verify(&config, &token),
        Err(AuthError::Signature),
        "a key in the token's own header"
    );
}

#[test]
fn claims_of_wrong_type_missing_or_twice_are_refused() {
    let config = config(vec![key("hs", Algorithm::Hs256, SECRET)]);
    let check = |payload: &str, expected: Result<(), AuthError>| {
        let token = forge(r#"{"alg":"HS256"}"#, payload, SECRET.as_bytes());
        assert_eq!(verify(&config, &token).map(|_| ()), expected, "{payload}");
    };
    let exp = NOW + 60;
    check(&format!(r#"{{"sub":"ann","exp":{exp}}}"#), Ok(()));
    check(
        &format!(r#"{{"sub":"ann","exp":{exp}.5,"iat":"any","other":[1]}}"#),
        Ok(()),
    );
    let wrong = |payload: &str| check(payload, Err(AuthError::Claims));
    wrong(r#"{"sub":"ann"}"#);
    wrong(&format!(r#"{{"exp":{exp}}}"#));
    wrong(&format!(r#"{{"sub":"ann","exp":"{exp}"}}"#));
    wrong(r#"{"sub":"ann","exp":"never"}"#);
    wrong(r#"{"sub":"ann","exp":null}"#);
    wrong(r#"{"sub":"ann","exp":true}"#);
    wrong(&format!(r#"{{"sub":"ann","exp":[{exp}]}}"#));
    wrong(r#"{"sub":"ann","exp":1e999}"#);
    wrong(&format!(r#"{{"sub":"","exp":{exp}}}"#));
    wrong(&format!(r#"{{"sub":7,"exp":{exp}}}"#));
    wrong(&format!(r#"{{"sub":"{}","exp":{exp}}}"#, "a".repeat(257)));
    wrong(&format!(r#"{{"sub":"ann","exp":{exp},"name":"{}"}}"#, "a".repeat(257)));
    wrong(&format!(r#"{{"sub":"ann","exp":{exp},"nbf":"0"}}"#));
    wrong(&format!(r#"{{"sub":"ann","exp":1,"exp":{exp}}}"#));
    wrong(&format!(r#"{{"sub":"ann","sub":"bob","exp":{exp}}}"#));
    wrong(&format!(
        r#"{{"sub":"ann","exp":{exp},"docs":{{"a":"read"}},"docs":{{"a":"write"}}}}"#
    ));
    wrong(&format!(
        r#"{{"sub":"ann","exp":{exp},"docs":{{"a":"read","a":"write"}}}}"#
    ));
    wrong(&format!(r#"{{"sub":"ann","exp":{exp},"docs":{{"a":"admin"}}}}"#));
    wrong(&format!(r#"{{"sub":"ann","exp":{exp},"docs":{{"a":true}}}}"#));
    wrong(&format!(r#"{{"sub":"ann","exp":{exp},"docs":["a"]}}"#));
    wrong(&format!(r#"{{"sub":"ann","exp":{exp},"docs":"**"}}"#));
    wrong(&format!(r#"{{"sub":"ann","exp":{exp},"docs":{{"a***":"read"}}}}"#));
    wrong("[]");
    wrong("null");
    wrong("");
}

#[test]
fn times_are_held_against_the_given_clock() {
    let config = config(vec![key("hs", Algorithm::Hs256, SECRET)]);
    let year = 366 * 24 * 60 * 60;
    let check = |exp: Value, nbf: Value, expected: Result<(), AuthError>| {
        let token = sign(
            jsonwebtoken::Algorithm::HS256,
            None,
            &json!({ "sub": "ann", "exp": exp, "nbf": nbf }),
        );
        assert_eq!(verify(&config, &token).map(|_| ()), expected, "exp {exp}, nbf {nbf}");
    };
    check(json!(NOW + 1), json!(NOW), Ok(()));
    check(json!(NOW), json!(0), Err(AuthError::Expired));
    check(json!(NOW - 1), json!(0), Err(AuthError::Expired));
    check(json!(0), json!(0), Err(AuthError::Expired));
    check(json!(-1), json!(0), Err(AuthError::Expired));
    check(json!(NOW + year), json!(0), Ok(()));
    check(json!(NOW + year + 1), json!(0), Err(AuthError::ExpiresTooLate));
    check(json!(253_402_300_799_u64), json!(0), Err(AuthError::ExpiresTooLate));
    check(json!(1e300), json!(0), Err(AuthError::ExpiresTooLate));
    check(json!(u64::MAX), json!(0), Err(AuthError::ExpiresTooLate));
    check(json!(NOW + 600), json!(NOW + 60), Ok(()));
    check(json!(NOW + 600), json!(NOW + 61), Err(AuthError::NotYet));
    check(json!(NOW + 600), json!(1e300), Err(AuthError::NotYet));
}

#[test]
fn audiences_have_to_be_ours() {
    let check = |ours: Option<&str>, theirs: Value, expected: Result<(), AuthError>| {
        let mut config = config(vec![key("hs", Algorithm::Hs256, SECRET)]);
        config.auth.audience = ours.map(str::to_owned);
        let mut claims = claims();
        claims["aud"] = theirs.clone();
        let token = sign(jsonwebtoken::Algorithm::HS256, None, &claims);
        assert_eq!(verify(&config, &token).map(|_| ()), expected, "{ours:?} {theirs}");
    };
    let refused = Err(AuthError::Audience);
    check(None, json!(null), Ok(()));
    check(None, json!("sync"), refused);
    check(Some("sync"), json!("sync"), Ok(()));
    check(Some("sync"), json!(["mail", "sync"]), Ok(()));
    check(Some("sync"), json!("mail"), refused);
    check(Some("sync"), json!("sync "), refused);
    check(Some("sync"), json!([]), refused);
    check(Some("sync"), json!(null), refused);
    check(Some("sync"), json!(7), Err(AuthError::Claims));
}

#[test]
fn changed_and_malformed_tokens_are_refused() {
    let config = config(vec![key("hs", Algorithm::Hs256, SECRET)]);
    let token = sign(jsonwebtoken::Algorithm::HS256, None, &claims());
    let parts: Vec<&str> = token.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(json!({ "sub": "root", "exp": NOW + 60 }).to_string());
    let check = |token: &str, expected: AuthError| assert_eq!(verify(&config, token), Err(expected), "{token}");
    check(&format!("{}.{other}.{}", parts[0], parts[2]), AuthError::Signature);
    check(&format!("{}.{}.", parts[0], parts[1]), AuthError::Signature);
    check(&format!("{}.{}", parts[0], parts[1]), AuthError::Malformed);
    check(&format!("{token}.{}", parts[2]), AuthError::Malformed);
    check(&format!("{token}="), AuthError::Malformed);
    check(&format!(" {token}"), AuthError::Malformed);
    check("", AuthError::Malformed);
    check("..", AuthError::Malformed);
    check("ä.ö.ü", AuthError::Malformed);
    check(&"a".repeat(8_192), AuthError::Malformed);
    check(&"a".repeat(8_193), AuthError::TooLong);
}

#[test]
fn error_texts_hold_nothing_of_the_token() {
    let config = config(vec![key("hs", Algorithm::Hs256, SECRET)]);
    let claims = json!({ "sub": ["canary"], "exp": "canary", "docs": { "canary": "canary" } });
    let token = sign(jsonwebtoken::Algorithm::HS256, Some("canary"), &claims);
    let error = verify(&config, &token).expect_err("refused");
    assert!(!format!("{error} {error:?}").contains("canary"));
    let token = sign(jsonwebtoken::Algorithm::HS256, Some("hs"), &claims);
    let error = verify(&config, &token).expect_err("refused");
    assert!(!format!("{error} {error:?}").contains("canary"));
}

#[test]
fn without_a_token_only_development_is_open() {
    let verifier = Verifier::new(&config(all_keys())).expect("usable keys");
    assert_eq!(verifier.admit(None, NOW_MS), Err(AuthError::Missing));
    let open = Verifier::new(&Config {
        dev: true,
        ..Config::default()
    })
    .expect("no keys are needed");
    assert_eq!(open.admit(None, NOW_MS), Ok(Grant::development()));
    assert_eq!(open.admit(Some("anything"), NOW_MS), Ok(Grant::development()));
}

#[test]
fn unusable_keys_are_told_at_the_start() {
    let check = |keys: Vec<KeyConfig>, expected: &str| {
        let error = Verifier::new(&config(keys)).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(vec![], "no key is configured");
    check(
        vec![key("k", Algorithm::Hs256, "short")],
        "key 'k': a secret has at least 32 bytes",
    );
    check(
        vec![key("k", Algorithm::Rs256, "x")],
        "key 'k': not a public key of this algorithm in PEM",
    );
    check(
        vec![key("k", Algorithm::EdDsa, &ES256.public_key_pem())],
        "key 'k': not a public key of this algorithm",
    );
    check(
        vec![key("k", Algorithm::EdDsa, &EDDSA.serialize_pem())],
        "key 'k': not a public key of this algorithm",
    );
    check(
        vec![key("k", Algorithm::Es256, &ES256.serialize_pem())],
        "key 'k': not a public key of this algorithm",
    );
    check(
        vec![key("k", Algorithm::Rs256, &RS256.serialize_pem())],
        "key 'k': not an RSA public key",
    );
    let p384 = pair(&PKCS_ECDSA_P384_SHA384).public_key_pem();
    check(
        vec![key("k", Algorithm::Es256, &p384)],
        "key 'k': not an uncompressed public key on P-256",
    );
    let twice = vec![key("k", Algorithm::Hs256, SECRET), key("k", Algorithm::Hs256, SECRET)];
    check(twice, "key 'k' is configured twice");
    let missing = KeyMaterial::File("/nowhere/key.pem".into());
    check(
        vec![KeyConfig {
            kid: "k".into(),
            algorithm: Algorithm::EdDsa,
            material: missing,
        }],
        "/nowhere/key.pem",
    );
}

#[test]
fn a_key_set_gives_the_keys_that_are_for_us() {
    use jsonwebtoken::Algorithm as A;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("jwks.json");
    let jwks = |text: Value| {
        std::fs::write(&path, text.to_string()).expect("written");
        let auth = AuthConfig {
            jwks_file: Some(path.clone()),
            ..Config::default().auth
        };
        Config {
            auth,
            ..Config::default()
        }
    };
    let point = ES256.public_key_raw();
    let (x, y) = (
        URL_SAFE_NO_PAD.encode(&point[1..33]),
        URL_SAFE_NO_PAD.encode(&point[33..]),
    );
    let es = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "es", "use": "sig" });
    let ed = json!({
        "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(EDDSA.public_key_raw()), "kid": "ed", "alg": "EdDSA"
    });
    let encryption = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "enc", "use": "enc" });
    let other = json!({ "kty": "EC", "crv": "secp256k1", "x": x, "y": y, "kid": "other" });
    let config = jwks(json!({ "keys": [es, ed, encryption, other] }));
    assert!(verify(&config, &sign(A::ES256, Some("es"), &claims())).is_ok());
    assert!(verify(&config, &sign(A::EdDSA, Some("ed"), &claims())).is_ok());
    assert_eq!(
        verify(&config, &sign(A::ES256, Some("enc"), &claims())),
        Err(AuthError::UnknownKey)
    );
    assert_eq!(
        verify(&config, &sign(A::ES256, Some("other"), &claims())),
        Err(AuthError::UnknownKey)
    );
    assert_eq!(
        verify(&config, &sign(A::HS256, Some("es"), &claims())),
        Err(AuthError::Algorithm)
    );
    let check = |text: Value, expected: &str| {
        let error = Verifier::new(&jwks(text)).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(json!({ "keys": [] }), "no key in it is for");
    check(json!([]), "not a JSON object with a list 'keys'");
    check(
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y }] }),
        "every key needs a 'kid'",
    );
    check(
        json!({ "keys": [{ "kty": "oct", "k": "c2hvcnQ", "kid": "k" }] }),
        "key 'k': a secret has at least 32 bytes",
    );
}

/// What is in the file, or why it is not.
fn again(verifier: &Verifier) -> Result<Again, String> {
    let Verifier::Tokens(verifier) = verifier else {
        panic!("not in development")
    };
    verifier.read_again().map_err(|error| error.to_string())
}

/// A verifier by a file, and how to change what that says.
fn followed() -> (tempfile::TempDir, impl Fn(&str), Verifier) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("own.toml");
    let write = move |text: &str| std::fs::write(&path, text).expect("written");
    write(&format!("auth.secret = '{SECRET}'"));
    let path = directory.path().join("own.toml");
    let config = Config::load(Some(&path), &std::collections::BTreeMap::new(), &[]).expect("a configuration");
    (directory, write, Verifier::new(&config).expect("a key"))
}

#[test]
fn only_other_keys_count_as_replaced() {
    let (directory, write, verifier) = followed();
    let metrics = Metrics::new();
    let replaced = || {
        metrics
            .render()
            .contains("syncline_reloads_total{what=\"Keys\",outcome=\"Done\"} 1\n")
    };
    let look = || {
        let again = again(&verifier).expect("it can be used");
        let Verifier::Tokens(verifier) = &verifier else {
            panic!("not in development")
        };
        verifier.take_over(again.keys, &metrics);
        again.needs_restart
    };
    assert!(!look(), "as it was");
    write(&format!("limits.edits_burst = 7\nauth.secret = '{SECRET}'"));
    assert!(look(), "a limit takes a restart");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let entry = format!("secret_file = '{}'", secret.display());
    write(&format!("[[auth.keys]]\nkid = 'default'\nalg = 'HS256'\n{entry}"));
    assert!(!look(), "it stands in another file");
    assert!(!replaced(), "but it is the same key");
    std::fs::write(&secret, SECRET.replace('0', "1")).expect("written");
    assert!(!look());
    assert!(replaced());
}

#[test]
fn keys_are_the_same_in_pem_and_in_a_set() {
    let keys = |key: KeyConfig| Keys::read(&config(vec![key]).auth).expect("a key");
    let all = || all_keys().into_iter().map(keys);
    assert!(all().eq(all()));
    assert_ne!(
        keys(key("k", Algorithm::EdDsa, &EDDSA.public_key_pem())),
        keys(key("k", Algorithm::EdDsa, &pair(&PKCS_ED25519).public_key_pem())),
    );
    assert_ne!(
        keys(key("k", Algorithm::Rs256, &RS256.public_key_pem())),
        keys(key("k", Algorithm::Rs256, &pair(&PKCS_RSA_SHA256).public_key_pem())),
    );
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("jwks.json");
    let pem = keys(key("k", Algorithm::Rs256, &RS256.public_key_pem()));
    let numbers = jsonwebtoken::jwk::Jwk::from_decoding_key(pem.find(None).expect("one").decoding(), None);
    let mut entry = serde_json::to_value(numbers.expect("an RSA key")).expect("JSON");
    entry["kid"] = "k".into();
    std::fs::write(&path, json!({ "keys": [entry] }).to_string()).expect("written");
    let set = AuthConfig {
        jwks_file: Some(path),
        ..Config::default().auth
    };
    let set = Keys::read(&set).expect("a set");
    assert_eq!(set, pem);
    assert_eq!(set, set);
}

#[test]
fn an_unusable_configuration_is_named_and_the_keys_stay() {
    let (_directory, write, verifier) = followed();
    write(&format!(
        "limits.edits_burst = 0\nauth.secret = '{}'",
        SECRET.replace('0', "1")
    ));
    let error = again(&verifier).err().expect("it cannot be used");
    assert!(error.contains("own.toml cannot be read again: "), "{error}");
    assert!(
        error.contains("key 'limits.edits_burst'") && error.contains("no key is replaced"),
        "{error}"
    );
    let token = sign(jsonwebtoken::Algorithm::HS256, None, &claims());
    assert!(verifier.admit(Some(&token), NOW_MS).is_ok());
}

#[cfg(unix)]
#[test]
fn a_configuration_from_a_pipe_keeps_its_keys_and_follows_their_files() {
    use std::{io::Write, os::fd::AsRawFd};
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let entry = format!(
        "[[auth.keys]]\nkid = 'app'\nalg = 'HS256'\nsecret_file = '{}'",
        secret.display()
    );
    writer
        .write_all(format!("auth.secret = '{SECRET}'\n{entry}").as_bytes())
        .expect("written");
    drop(writer);
    let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
    let config = Config::load(Some(&path), &std::collections::BTreeMap::new(), &[]).expect("a configuration");
    let before = Keys::read(&config.auth).expect("keys");
    let verifier = Verifier::new(&config).expect("keys");
    assert_eq!(again(&verifier).expect("keys").keys, before);
    std::fs::write(&secret, SECRET.replace('0', "1")).expect("written");
    let after = again(&verifier).expect("keys").keys;
    assert_eq!(after.len(), 2);
    assert_eq!(after.find(Some("default")), before.find(Some("default")));
    assert_ne!(after.find(Some("app")), before.find(Some("app")));
}
