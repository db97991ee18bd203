//! Row 30: forged tokens.

use crate::{
    client::{Client, Heard},
    clock::unix_s,
    process::{self, Setup},
    token::{SECRET, claims, lasting, signed_with},
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use syncline_protocol::native::ServerMessage;

pub(crate) const ROW: Row = Row {
    number: "30",
    name: "forged tokens",
    target: "none, RS to HS, kid tricks, text exp, no exp, wrong aud, expired, far future: 0 accepted",
    ci: 1,
    soak: 10,
    run,
    bites: &[Bite {
        name: "a server that knows the forger's key and no bounds",
        environment: &[
            ("SYNCLINE_AUTH_SECRET", FORGED),
            ("SYNCLINE_AUTH_TOKEN_TTL_MAX_MS", "99999999999999"),
        ],
        count: 1,
    }],
};

const FORGED: &str = "a secret of the forger that is long enough, too";
const DOCS: &[(&str, &str)] = &[("**", "write")];

fn run(trial: &Trial) -> Outcome {
    let keys = Keys::make(trial)?;
    let config = trial.scratch.join("syncline.toml");
    std::fs::write(&config, keys.config()).map_err(|error| error.to_string())?;
    let setup: Setup = trial.setup(&trial.directory("store"));
    let setup = setup
        .arguments(&["--config", &config.display().to_string()])
        .variable("SYNCLINE_AUTH_SECRET", SECRET)
        .variable("SYNCLINE_AUTH_AUDIENCE", "trials");
    let process = setup.start()?;
    let mut count = 0;
    trial.rounds(|_, _| {
        for (name, good) in keys.good() {
            let answer = answer(process.address, &good)?;
            ensure!(answer == "welcome", "the token {name} is answered with {answer}");
        }
        for (name, forged) in keys.forged() {
            let answer = answer(process.address, &forged)?;
            ensure!(answer == "4401", "{name}: answered with {answer}");
            count += 1;
        }
        Ok(())
    })?;
    let text = format!("0 of {count} accepted; the good ones are");
    Ok(Figure { count, text })
}

/// The first answer to a hello with this token.
fn answer(address: std::net::SocketAddr, token: &str) -> Result<String, String> {
    let mut client = Client::silent(address)?;
    client.hello(Some(token))?;
    loop {
        match client.hear() {
            Heard::Message(ServerMessage::Welcome(_)) => return Ok("welcome".into()),
            Heard::Message(_) => {}
            Heard::Ended(code) => return Ok(code.map_or_else(|| "gone".into(), |code| code.to_string())),
            Heard::Silence => return Ok("silence".into()),
        }
    }
}

/// The server's keys: a secret, and a pair of which it has the public half.
struct Keys {
    private: String,
    public: String,
}

impl Keys {
    fn make(trial: &Trial) -> Result<Self, String> {
        let output = process::run(&trial.program, &["key", "--alg", "EdDSA"])?;
        let (private, entry) = output.split_once("\n# The entry").ok_or("no pair of keys was made")?;
        let begin = entry.find("-----BEGIN").ok_or("no public key was made")?;
        let end = entry
            .rfind("-----END PUBLIC KEY-----")
            .ok_or("no public key was made")?;
        Ok(Self {
            private: private.to_owned(),
            public: format!("{}-----END PUBLIC KEY-----\n", &entry[begin..end]),
        })
    }

    fn config(&self) -> String {
        format!(
            "[[auth.keys]]\nkid = \"pair\"\nalg = \"EdDSA\"\npublic_key = \"\"\"\n{}\"\"\"\n",
            self.public
        )
    }

    fn good(&self) -> Vec<(&'static str, String)> {
        let pair = EncodingKey::from_ed_pem(self.private.as_bytes()).expect("a key");
        let header = Header {
            kid: Some("pair".into()),
            ..Header::new(Algorithm::EdDSA)
        };
        let by_pair = jsonwebtoken::encode(&header, &heard(claims("anna", DOCS)), &pair).expect("a token");
        vec![
            ("of the secret", by_secret(&heard(claims("anna", DOCS)))),
            ("of the pair", by_pair),
        ]
    }

    fn forged(&self) -> Vec<(&'static str, String)> {
        let good = heard(claims("anna", DOCS));
        let mut all = self.wrong_keys(&good);
        all.extend(Self::wrong_headers(&good));
        all.extend(wrong_claims(&good));
        all
    }

    /// No signature, and those of other keys and algorithms.
    fn wrong_keys(&self, good: &Value) -> Vec<(&'static str, String)> {
        let hs = |kid: &str, secret: &[u8]| signed_with(&kid_header(kid), good, secret);
        let (other, _) = by_secret(&heard(claims("eve", DOCS)))
            .rsplit_once('.')
            .map(split)
            .expect("parts");
        let (_, signature) = by_secret(good).rsplit_once('.').map(split).expect("parts");
        let pair = json!({ "alg": "EdDSA", "kid": "default" });
        vec![
            ("alg none", unsigned(&json!({ "alg": "none" }), good)),
            (
                "alg None with a kid",
                unsigned(&json!({ "alg": "None", "kid": "default" }), good),
            ),
            (
                "alg none for the pair",
                unsigned(&json!({ "alg": "NONE", "kid": "pair" }), good),
            ),
            ("no alg", unsigned(&json!({ "kid": "default" }), good)),
            (
                "no signature",
                unsigned(&json!({ "alg": "HS256", "kid": "default" }), good),
            ),
            ("the forger's secret", hs("default", FORGED.as_bytes())),
            ("the public key as a secret", hs("pair", self.public.as_bytes())),
            (
                "the public key as a secret, trimmed",
                hs("pair", self.public.trim().as_bytes()),
            ),
            ("an empty secret", hs("default", b"")),
            ("the pair's algorithm for the secret", unsigned(&pair, good)),
            ("another's signature", format!("{other}.{signature}")),
        ]
    }

    /// Headers that point elsewhere, or nowhere.
    fn wrong_headers(good: &Value) -> Vec<(&'static str, String)> {
        let hs = |kid: &str, secret: &[u8]| signed_with(&kid_header(kid), good, secret);
        let jwk = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(FORGED) });
        vec![
            ("an unknown kid", hs("nobody", SECRET.as_bytes())),
            ("a kid that is a path", hs("../../../../dev/null", b"")),
            ("a kid that is a query", hs("x' UNION SELECT 'k", b"k")),
            ("an empty kid", hs("", SECRET.as_bytes())),
            (
                "a kid that is a list",
                tampered(&json!({ "alg": "HS256", "kid": ["default"] }), good, SECRET),
            ),
            (
                "no kid among two keys",
                tampered(&json!({ "alg": "HS256" }), good, SECRET),
            ),
            (
                "a key of its own",
                tampered(&json!({ "alg": "HS256", "jwk": jwk }), good, FORGED),
            ),
            (
                "a key from elsewhere",
                tampered(&json!({ "alg": "HS256", "jku": "http://127.0.0.1/k" }), good, FORGED),
            ),
            (
                "HS384",
                signed_with(
                    &Header {
                        alg: Algorithm::HS384,
                        ..kid_header("default")
                    },
                    good,
                    SECRET.as_bytes(),
                ),
            ),
            (
                "HS512",
                signed_with(
                    &Header {
                        alg: Algorithm::HS512,
                        ..kid_header("default")
                    },
                    good,
                    SECRET.as_bytes(),
                ),
            ),
        ]
    }
}

/// Right signatures over claims that are not good.
fn wrong_claims(good: &Value) -> Vec<(&'static str, String)> {
    let with = |claim: &str, value: Value| {
        let mut claims = good.clone();
        claims[claim] = value;
        by_secret(&claims)
    };
    let without = |claim: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("claims").remove(claim);
        by_secret(&claims)
    };
    let soon = unix_s() + 600;
    vec![
        ("exp as text", with("exp", json!(soon.to_string()))),
        ("exp as a list", with("exp", json!([soon]))),
        ("exp null", with("exp", Value::Null)),
        ("no exp", without("exp")),
        ("exp negative", with("exp", json!(-1))),
        ("exp without end", with("exp", json!(1e300))),
        ("exp as large as can be", with("exp", json!(u64::MAX))),
        ("expired", by_secret(&heard(lasting("anna", DOCS, -120)))),
        ("expired long ago", with("exp", json!(1))),
        (
            "far future",
            by_secret(&heard(lasting("anna", DOCS, 20 * 366 * 86_400))),
        ),
        ("not yet", with("nbf", json!(soon))),
        ("wrong aud", with("aud", json!("others"))),
        ("wrong list of aud", with("aud", json!(["others", "more"]))),
        ("no aud", without("aud")),
        ("no sub", without("sub")),
        ("sub is a number", with("sub", json!(7))),
        ("docs as a text", with("docs", json!("**"))),
        ("an access that is none", with("docs", json!({ "**": "admin" }))),
    ]
}

fn heard(mut claims: Value) -> Value {
    claims["aud"] = json!("trials");
    claims
}

fn kid_header(kid: &str) -> Header {
    Header {
        kid: Some(kid.to_owned()),
        ..Header::default()
    }
}

fn by_secret(claims: &Value) -> String {
    signed_with(&kid_header("default"), claims, SECRET.as_bytes())
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}.", encoded(header), encoded(claims))
}

/// A right signature with this secret under a header that the library would not make.
fn tampered(header: &Value, claims: &Value, secret: &str) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

fn split((head, signature): (&str, &str)) -> (String, String) {
    (head.to_owned(), signature.to_owned())
}
