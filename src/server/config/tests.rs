//! What files, variables and flags come to, which wins, and what is said of the wrong ones.

use super::{settings::Settings, *};

const EXAMPLE: &str = include_str!("../../../syncline.example.toml");

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn flag(name: &'static str, key: &'static str, value: &str) -> Flag {
    Flag {
        name,
        key,
        value: value.to_owned(),
    }
}

fn load(text: &str, pairs: &[(&str, &str)], flags: &[Flag]) -> Result<Config, String> {
    Config::from_text(text, &environment(pairs), flags).map_err(|error| error.to_string())
}

#[test]
fn the_example_lists_every_key_with_its_default() {
    let mut defaults = toml::Table::try_from(Settings::default()).expect("TOML");
    // A list of tables cannot stand in the example without being a key; it is shown in comments.
    defaults["auth"].as_table_mut().expect("a table").remove("keys");
    let example: toml::Table = toml::from_str(EXAMPLE).expect("TOML");
    assert_eq!(example, defaults);
    assert_eq!(load(EXAMPLE, &[], &[]), Ok(Config::default()));
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let check = |text: &str, pairs: &[(&str, &str)], flags: &[Flag], expected: &str| {
        let listen = load(text, pairs, flags).map(|config| config.listen.to_string());
        assert_eq!(listen.as_deref(), Ok(expected));
    };
    let file = "listen = '127.0.0.1:1'";
    let variable = [("SYNCLINE_LISTEN", "127.0.0.1:2")];
    let flags = [flag("--listen", "listen", "127.0.0.1:3")];
    check("", &[], &[], "127.0.0.1:4400");
    check(file, &[], &[], "127.0.0.1:1");
    check(file, &variable, &[], "127.0.0.1:2");
    check(file, &variable, &flags, "127.0.0.1:3");
    check("", &[], &flags, "127.0.0.1:3");
}

#[test]
fn every_kind_of_value_can_come_from_a_variable() {
    let pairs = [
        ("SYNCLINE_DEV", "true"),
        ("SYNCLINE_DATA", "/srv/data"),
        (
            "SYNCLINE_ALLOWED_ORIGINS",
            "https://a.example.com, http://localhost:5173",
        ),
        ("SYNCLINE_TRUSTED_PROXIES", "10.0.0.0/8"),
        ("SYNCLINE_AUTH_AUDIENCE", "12345"),
        ("SYNCLINE_LOG_FORMAT", "json"),
        ("SYNCLINE_ROOMS_MEMORY_BYTES_MAX", "100_000_000"),
        ("SYNCLINE_LIMITS_PRESENCE_BYTES_MAX", "512"),
        ("SYNCLINE_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = load("limits.edits_burst = 7", &pairs, &[]).expect("a configuration");
    assert!(config.dev);
    assert_eq!(config.data, PathBuf::from("/srv/data"));
    let origins: Vec<String> = config.allowed_origins.iter().map(Origin::to_string).collect();
    assert_eq!(origins, ["https://a.example.com:443", "http://localhost:5173"]);
    assert!(config.trusted_proxies[0].contains([10, 1, 2, 3].into()));
    assert_eq!(config.auth.audience.as_deref(), Some("12345"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.rooms_memory_bytes_max, 100_000_000);
    let limits = Limits {
        presence_bytes_max: 512,
        edits_burst: 7,
        ..Limits::default()
    };
    assert_eq!(config.limits, limits);
}

#[test]
fn every_key_has_a_variable() {
    assert_eq!(variables::variable("listen"), "SYNCLINE_LISTEN");
    assert_eq!(
        variables::variable("limits.frame_bytes_max"),
        "SYNCLINE_LIMITS_FRAME_BYTES_MAX"
    );
}

#[test]
fn a_variable_that_was_to_be_another_is_refused() {
    for (name, meant) in [
        ("SYNCLINE_LIMITS_FRAME_BYTES_MX", "SYNCLINE_LIMITS_FRAME_BYTES_MAX"),
        ("SYNCLINE_LIMIT_FRAME_BYTES_MAX", "SYNCLINE_LIMITS_FRAME_BYTES_MAX"),
        ("SYNCLINE_FRAME_BYTES_MAX", "SYNCLINE_LIMITS_FRAME_BYTES_MAX"),
        ("SYNCLINE_LIMITS_FRAMES", "SYNCLINE_LIMITS_FRAME_BYTES_MAX"),
        ("SYNCLINE_CERT", "SYNCLINE_TLS_CERT"),
        ("SYNCLINE_LISTENS", "SYNCLINE_LISTEN"),
        ("SYNCLINE_CONFIGS", "SYNCLINE_CONFIG"),
        ("SYNCLINE_AUTH_SECRETS", "SYNCLINE_AUTH_SECRET"),
    ] {
        let error = load("", &[(name, "1")], &[]).expect_err("it is refused");
        assert!(error.starts_with(&format!("{name}: ")), "{error}");
        if name != "SYNCLINE_LIMITS_FRAMES" {
            assert!(error.contains(&format!("{meant} ")), "{error}");
        }
    }
    for name in [
        "SYNCLINE_CONFIG",
        "SYNCLINE_TOKEN",
        "SYNCLINE_BIN",
        "SYNCLINE_TRACES",
        "SYNCLINE_FAILPOINTS",
        "SYNCLINE_SHOW_LOG",
        "SYNCLINE_GATE_CASES",
        "SYNCLINE_PORT",
        "SYNCLINE_PORT_4400_TCP_ADDR",
        "SYNCLINE_GATEWAY_SERVICE_HOST",
        "SYNCLINE_GATEWAY_SERVICE_PORT_HTTP",
        "SYNCLINE_GATEWAY_PORT_4400_TCP",
        "OTHER_LIMITS_FRAME_BYTES_MX",
    ] {
        assert_eq!(load("", &[(name, "1")], &[]), Ok(Config::default()), "{name}");
    }
}

#[test]
fn keys_are_read_from_the_file_and_from_the_secret() {
    let text = "
        [[auth.keys]]
        kid = 'a'
        alg = 'HS256'
        secret_file = '/run/secret'
        [[auth.keys]]
        kid = 'b'
        alg = 'EdDSA'
        public_key = 'PEM'
    ";
    let config = load(text, &[("SYNCLINE_AUTH_SECRET", "shared")], &[]).expect("a configuration");
    let key = |kid: &str, algorithm, material| KeyConfig {
        kid: kid.into(),
        algorithm,
        material,
    };
    let expected = [
        key("default", Algorithm::Hs256, KeyMaterial::Inline("shared".into())),
        key("a", Algorithm::Hs256, KeyMaterial::File("/run/secret".into())),
        key("b", Algorithm::EdDsa, KeyMaterial::Inline("PEM".into())),
    ];
    assert_eq!(config.auth.keys, expected);
    assert!(!format!("{config:?}").contains("shared"), "a secret must not be shown");
}

fn check_error(text: &str, pairs: &[(&str, &str)], flags: &[Flag], expected: &str) {
    let error = load(text, pairs, flags).expect_err(expected);
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn errors_of_the_file_name_the_line() {
    let check = |text: &str, expected: &str| check_error(text, &[], &[], &format!("syncline.toml, line {expected}"));
    check(
        "dev = false\nlisten = 4400",
        "2: invalid type: integer `4400`, expected a string",
    );
    check("\n\nlisen = 'x'", "3: unknown field `lisen`");
    check("[limits]\nframe_bytes = 1", "2: unknown field `frame_bytes`");
    check("[limits]\nedits_burst = -1", "2: invalid value: integer `-1`");
    check("listen = ", "1: ");
    check("[[auth.keys]]\nkid = 'k'", "1: missing field `alg`");
}

#[test]
fn errors_of_values_name_the_key_and_say_what_to_do() {
    let check = |text: &str, key: &str, expected: &str| {
        check_error(text, &[], &[], &format!("syncline.toml, key '{key}': {expected}"));
    };
    check(
        "listen = 'localhost'",
        "listen",
        "'localhost' is not an address; give an IP",
    );
    check(
        "dev = true\nlisten = '0.0.0.0:1'",
        "listen",
        "0.0.0.0:1 is not loopback",
    );
    check("data = ''", "data", "no directory is named");
    check("allowed_origins = ['*']", "allowed_origins", "'*' is not an origin");
    check("trusted_proxies = ['x']", "trusted_proxies", "'x' is not a network");
    check("tls.cert = 'a'", "tls.cert", "a certificate needs its key");
    check("tls.key = 'a'", "tls.key", "a key needs its certificate");
    check("log.format = 'xml'", "log.format", "'xml' is not a format");
    check("log.filter = 'a=b=c'", "log.filter", "'a=b=c' is not a filter");
    check(
        "log.filter = 'info,verbose'",
        "log.filter",
        "'info,verbose' is not a filter",
    );
    check(
        "gateway.connections_max = 0",
        "gateway.connections_max",
        "give a number",
    );
    check("rooms.memory_bytes_max = 1", "rooms.memory_bytes_max", "give at least");
    check("limits.edits_burst = 0", "limits.edits_burst", "a limit of 0");
    check("limits.frame_bytes_max = 1", "limits.frame_bytes_max", "give a size");
    check(
        "limits.token_bytes_max = 300_000",
        "limits.token_bytes_max",
        "give a size",
    );
    check(
        "limits.ping_interval_ms = 45_000",
        "limits.ping_interval_ms",
        "a connection would be given up",
    );
}

#[test]
fn errors_of_keys_name_the_key() {
    let check = |lines: &str, expected: &str| {
        check_error(
            &format!("[[auth.keys]]\n{lines}"),
            &[],
            &[],
            &format!("syncline.toml, key 'auth.keys': {expected}"),
        );
    };
    check("kid = 'k'\nalg = 'none'", "key 'k': 'none' is not an algorithm");
    check("kid = ''\nalg = 'HS256'", "key '': a key needs a 'kid'");
    check("kid = 'k'\nalg = 'HS256'", "key 'k': HS256 needs either 'secret'");
    check(
        "kid = 'k'\nalg = 'HS256'\npublic_key = 'p'",
        "key 'k': HS256 needs either 'secret'",
    );
    check(
        "kid = 'k'\nalg = 'RS256'\nsecret = 's'",
        "key 'k': RS256 needs either 'public_key'",
    );
    check(
        "kid = 'k'\nalg = 'RS256'\npublic_key = 'p'\nsecret = 's'",
        "key 'k': RS256 has a secret or a public key",
    );
}

#[test]
fn errors_of_variables_and_flags_name_them() {
    let variable = |name: &str, value: &str, expected: &str| {
        check_error("", &[(name, value)], &[], &format!("{name}: {expected}"));
    };
    variable("SYNCLINE_LISTEN", "x", "'x' is not an address");
    variable("SYNCLINE_DEV", "maybe", "'maybe' is not true or false");
    variable("SYNCLINE_LIMITS_EDITS_BURST", "many", "'many' is not a whole number");
    check_error(
        "",
        &[],
        &[flag("--listen", "listen", ":4400")],
        "--listen: ':4400' is not an address",
    );
    let text = "limits.idle_timeout_ms = 9";
    check_error(
        text,
        &[],
        &[],
        "the default of 'limits.ping_interval_ms': a connection would be given up",
    );
}

#[test]
fn a_named_file_has_to_be_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("own.toml");
    let none = BTreeMap::new();
    let error = Config::load(Some(&path), &none, &[]).expect_err("no file").to_string();
    assert!(error.contains("own.toml: ") && error.contains("--config"), "{error}");
    std::fs::write(&path, "listen = '127.0.0.1:7'").expect("written");
    assert_eq!(
        Config::load(Some(&path), &none, &[])
            .expect("a configuration")
            .listen
            .port(),
        7
    );
    let variable = environment(&[(PATH_VARIABLE, path.to_str().expect("text"))]);
    assert_eq!(
        Config::load(None, &variable, &[])
            .expect("a configuration")
            .listen
            .port(),
        7
    );
    let nothing = Config::load(None, &none, &[]).expect("a configuration");
    assert_eq!(
        Config {
            source: None,
            ..nothing
        },
        Config::default()
    );
}

#[test]
fn what_came_from_a_file_is_read_again_with_the_same_variables_and_flags() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("own.toml");
    let write = |secret: &str| std::fs::write(&path, format!("auth.secret = '{secret}'")).expect("written");
    write("one");
    let variables = environment(&[
        (PATH_VARIABLE, path.to_str().expect("text")),
        ("SYNCLINE_AUTH_AUDIENCE", "us"),
    ]);
    let flags = [flag("--listen", "listen", "127.0.0.1:7")];
    let config = Config::load(None, &variables, &flags).expect("a configuration");
    let source = config.source.clone().expect("it came from a file");
    assert_eq!(source.read().ok(), Some(config));
    assert_eq!(source.file(), path);
    write("canary");
    let again = source.read().expect("a configuration");
    let secret = KeyMaterial::Inline("canary".into());
    assert_eq!(again.auth.keys[0].material, secret);
    assert_eq!((again.auth.audience.as_deref(), again.listen.port()), (Some("us"), 7));
    assert!(!format!("{again:?}").contains("canary"));
    std::fs::remove_file(&path).expect("removed");
    assert!(matches!(source.read(), Err(ConfigError::Unreadable { .. })));
}
