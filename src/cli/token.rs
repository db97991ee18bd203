//! `syncline token`: signs a token, for trying things out and for scripts. Applications sign their own.

use super::{ConfigFile, Failure, load_config, print, say};
use anyhow::{Context, anyhow};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use std::{collections::BTreeMap, str::FromStr, time::Duration};
use syncline::{
    engine::grant::Pattern,
    server::{
        auth,
        clock::Clock,
        config::{Algorithm, Config, Flag, KeyConfig},
    },
};

/// Print a token, signed with the configured HS256 secret
///
/// The secret is the HS256 key of the configuration file, or SYNCLINE_AUTH_SECRET. `syncline key --alg HS256` makes one.
///
/// In a pattern `*` stands for anything within one part between slashes, `**` for anything:
/// syncline token --sub ann --doc 'notes/*=write' --doc '**=read'
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Token {
    /// Whose token it is
    #[arg(long, value_name = "NAME")]
    sub: String,
    /// What may be read or written; may be given several times
    #[arg(long = "doc", value_name = "PATTERN=read|write", required = true)]
    docs: Vec<DocRule>,
    /// How long it is valid, like 90s, 1h or 7d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// The name that others see
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Which key signs, if several are configured for HS256
    #[arg(long, value_name = "KID")]
    kid: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
}

/// One `--doc`.
#[derive(Clone, Debug)]
struct DocRule {
    pattern: String,
    access: &'static str,
}

impl FromStr for DocRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, access) = text
            .rsplit_once('=')
            .ok_or("give a pattern, '=', and read or write: 'notes/*=write'")?;
        pattern.parse::<Pattern>().map_err(|error| error.to_string())?;
        let access = match access {
            "read" => "read",
            "write" => "write",
            other => return Err(format!("'{other}' is neither read nor write")),
        };
        Ok(Self {
            pattern: pattern.to_owned(),
            access,
        })
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    docs: BTreeMap<&'a str, &'a str>,
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failure> {
        let no_flags: &[Flag] = &[];
        let config = load_config(self.file.config.as_deref(), no_flags)?;
        config.warnings.iter().for_each(|warning| say(warning));
        let key = self.signing_key(&config)?;
        let secret = auth::read_material(key).map_err(|error| Failure::Usage(error.to_string()))?;
        if self.ttl.as_millis() > u128::from(config.auth.token_ttl_max_ms) {
            return Err(Failure::Usage(
                "--ttl is longer than the server takes, see auth.token_ttl_max_ms".into(),
            ));
        }
        if self.sub.is_empty() {
            return Err(Failure::Usage("--sub is empty; name whose token it is".into()));
        }
        if self.ttl.as_secs() == 0 {
            return Err(Failure::Usage("--ttl is less than a second".into()));
        }
        let now_ms = Clock::start().unix_ms();
        let claims = Claims {
            sub: &self.sub,
            exp: now_ms / 1_000 + self.ttl.as_secs(),
            name: self.name.as_deref(),
            aud: config.auth.audience.as_deref(),
            docs: self
                .docs
                .iter()
                .map(|rule| (rule.pattern.as_str(), rule.access))
                .collect(),
        };
        let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some(key.kid.clone());
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes()));
        let token = token.context("cannot sign")?;
        // What the server would refuse is told here.
        let verifier = auth::Verifier::new(&Config {
            dev: false,
            ..config.clone()
        });
        let verifier = verifier.map_err(|error| Failure::Usage(error.to_string()))?;
        verifier
            .admit(Some(&token), now_ms)
            .map_err(|error| anyhow!("the server would refuse this token: {error}"))?;
        Ok(print(&token)?)
    }

    fn signing_key<'a>(&self, config: &'a Config) -> Result<&'a KeyConfig, Failure> {
        let is_wanted =
            |key: &&KeyConfig| key.algorithm == Algorithm::Hs256 && self.kid.as_ref().is_none_or(|kid| *kid == key.kid);
        let mut keys = config.auth.keys.iter().filter(is_wanted);
        let usage = |text: &str| Failure::Usage(text.to_owned());
        match (keys.next(), keys.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(usage("several HS256 keys are configured; name one with --kid")),
            (None, _) if self.kid.is_some() => Err(usage("no HS256 key of that --kid is configured")),
            (None, _) => Err(usage(
                "no HS256 secret is configured: `syncline key --alg HS256 >> syncline.toml` makes one, or set \
                 SYNCLINE_AUTH_SECRET",
            )),
        }
    }
}
