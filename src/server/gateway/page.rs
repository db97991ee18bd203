//! The demo page and its files, built into the binary: which of them a request gets, packed how, kept how long, and what
//! they may load. It reads no file and knows nothing of rooms: the page is a client like any other.

use super::http::nothing;
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Where the page is not built in, this says how to build it.
const PLACEHOLDER: File = File {
    path: "index.html",
    plain: include_bytes!("page.html"),
    gzip: None,
};

/// What `build.rs` found of the page.
const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// What the page may do: run its own scripts and Automerge's WebAssembly, and talk to this server. Nothing from elsewhere,
/// nothing that stands in the document's text.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; \
                      font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The placeholder styles itself and loads nothing.
const PLACEHOLDER_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Names in this folder carry a hash of what is in them: one name, one content, for good.
const HASHED: &str = "assets/";

/// One file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File {
    path: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
}

/// `GET /`: the page.
pub(super) async fn index(headers: HeaderMap) -> Response {
    match find(FILES, "index.html") {
        Some(file) => file.answer(&headers, POLICY),
        None => PLACEHOLDER.answer(&headers, PLACEHOLDER_POLICY),
    }
}

/// `GET` of one of the page's files.
pub(super) async fn file(uri: Uri, headers: HeaderMap) -> Response {
    match find(FILES, uri.path().trim_start_matches('/')) {
        Some(file) => file.answer(&headers, POLICY),
        None => nothing().await,
    }
}

fn find(files: &[File], path: &str) -> Option<File> {
    files.iter().find(|file| file.path == path).copied()
}

impl File {
    fn answer(self, request: &HeaderMap, policy: &'static str) -> Response {
        let (bytes, is_packed) = match self.gzip {
            Some(gzip) if takes_gzip(request) => (gzip, true),
            _ => (self.plain, false),
        };
        let mut headers = self.headers(policy);
        if is_packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if !self.path.starts_with(HASHED) {
            let tag = tag(bytes);
            let is_known = knows(request, &tag);
            headers.insert(header::ETAG, tag);
            if is_known {
                return (StatusCode::NOT_MODIFIED, headers).into_response();
            }
        }
        (headers, bytes).into_response()
    }

    /// What does not depend on the request.
    fn headers(self, policy: &'static str) -> HeaderMap {
        let cache = if self.path.starts_with(HASHED) {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let fixed: [(HeaderName, &'static str); 6] = [
            (header::CONTENT_TYPE, content_type(self.path)),
            (header::CACHE_CONTROL, cache),
            (header::VARY, "accept-encoding"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CONTENT_SECURITY_POLICY, policy),
        ];
        fixed
            .into_iter()
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect()
    }
}

/// By the ending of the name; those that the page's build makes.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

/// Whether gzip is among the encodings that the client takes; a weight of 0 says that it is not.
fn takes_gzip(request: &HeaderMap) -> bool {
    listed(request, &header::ACCEPT_ENCODING).any(|encoding| {
        let (name, weight) = encoding.split_once(';').unwrap_or((encoding, ""));
        let is_refused = weight
            .trim()
            .strip_prefix("q=")
            .is_some_and(|weight| weight.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

/// Whether the client holds what the tag stands for. Tags are compared weakly, as RFC 9110, 13.1.2 wants it.
fn knows(request: &HeaderMap, tag: &HeaderValue) -> bool {
    listed(request, &header::IF_NONE_MATCH)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known).as_bytes() == tag.as_bytes())
}

/// The members of a header that is a list.
fn listed<'a>(request: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = request.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The first 16 bytes of the hash: enough to tell two builds apart.
fn tag(bytes: &[u8]) -> HeaderValue {
    let mut text = String::from("\"");
    for byte in &Sha256::digest(bytes)[..16] {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    HeaderValue::try_from(text).expect("hexadecimal digits in quotes are a header's value")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: File = File {
        path: "assets/index-Ab12.js",
        plain: b"plain",
        gzip: Some(b"packed"),
    };
    const INDEX: File = File {
        path: "index.html",
        plain: b"<!doctype html>",
        gzip: None,
    };

    fn asked(headers: &[(HeaderName, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    fn header<'a>(answer: &'a Response, name: &HeaderName) -> Option<&'a str> {
        answer.headers().get(name).map(|value| value.to_str().expect("ASCII"))
    }

    #[test]
    fn packed_only_for_those_who_take_it() {
        let check = |accepted: &'static str, encoding: Option<&str>| {
            let answer = SCRIPT.answer(&asked(&[(header::ACCEPT_ENCODING, accepted)]), POLICY);
            assert_eq!(header(&answer, &header::CONTENT_ENCODING), encoding, "{accepted}");
        };
        check("gzip, deflate, br", Some("gzip"));
        check("br;q=1.0, GZIP;q=0.5", Some("gzip"));
        check("gzip;q=0", None);
        check("identity", None);
        let answer = SCRIPT.answer(&HeaderMap::new(), POLICY);
        assert_eq!(header(&answer, &header::CONTENT_ENCODING), None);
    }

    #[test]
    fn hashed_names_are_kept_for_good_and_others_are_asked_for_by_tag() {
        let answer = SCRIPT.answer(&HeaderMap::new(), POLICY);
        assert_eq!(
            header(&answer, &header::CACHE_CONTROL),
            Some("public, max-age=31536000, immutable")
        );
        assert_eq!(header(&answer, &header::ETAG), None);

        let answer = INDEX.answer(&HeaderMap::new(), POLICY);
        assert_eq!(header(&answer, &header::CACHE_CONTROL), Some("no-cache"));
        let tag = answer.headers()[header::ETAG].clone();
        let mut again = HeaderMap::new();
        let known = format!("\"other\", W/{}", tag.to_str().expect("ASCII"));
        again.insert(header::IF_NONE_MATCH, known.parse().expect("a value"));
        assert_eq!(INDEX.answer(&again, POLICY).status(), StatusCode::NOT_MODIFIED);
        let other = asked(&[(header::IF_NONE_MATCH, "\"other\"")]);
        assert_eq!(INDEX.answer(&other, POLICY).status(), StatusCode::OK);
    }

    #[test]
    fn a_page_that_is_built_in_is_whole() {
        if FILES.is_empty() {
            return;
        }
        assert!(find(FILES, "index.html").is_some());
        for file in FILES {
            assert_ne!(content_type(file.path), "application/octet-stream", "{}", file.path);
            assert!(!file.plain.is_empty(), "{}", file.path);
        }
        assert!(FILES.iter().any(|file| content_type(file.path) == "application/wasm"));
    }
}
