//! The page at `/`: the node live, in a browser, out of this binary alone.
//!
//! It is one document that loads nothing: style and script are in it, and the policy that it is sent with lets a browser
//! run these two and no others, by their hashes, and talk to nobody but this daemon. The sources are the files in
//! `page/`; comments and indentation stay behind, nothing else is changed.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use ring::digest::{SHA256, digest};
use std::sync::LazyLock;

const FRAME: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
/// Each declares one constant and uses those before it; only the last one does something by itself.
const SCRIPTS: [&str; 10] = [
    include_str!("page/dom.js"),
    include_str!("page/format.js"),
    include_str!("page/store.js"),
    include_str!("page/stream.js"),
    include_str!("page/list.js"),
    include_str!("page/draw.js"),
    include_str!("page/parts.js"),
    include_str!("page/services.js"),
    include_str!("page/views.js"),
    include_str!("page/app.js"),
];

/// The page as it is sent.
struct Page {
    html: Bytes,
    policy: HeaderValue,
    tag: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

/// The page; nothing but the head for a browser that has it already.
pub(super) fn answer(asked: &HeaderMap) -> Response<Bytes> {
    let page = &*PAGE;
    let is_known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok()).any(|tags| {
        let ours = page.tag.to_str().unwrap_or_default();
        tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == ours)
    });
    let mut response = Response::new(if is_known { Bytes::new() } else { page.html.clone() });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, page.policy.clone());
    headers.insert(ETAG, page.tag.clone());
    // A browser asks whether it is still the same: another version of the daemon has another page.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // For browsers that do not know `frame-ancestors`.
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

impl Page {
    fn new() -> Self {
        let style = squeezed_style();
        let script = format!("\"use strict\";\n{}", SCRIPTS.map(squeezed_script).concat());
        let html = FRAME.replacen("/*STYLE*/", &style, 1).replacen("/*SCRIPT*/", &script, 1);
        // Nothing may be loaded, framed or sent anywhere, and no text may become markup, script or style.
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            hash(&script),
            hash(&style),
        );
        let tag = format!("\"{}\"", STANDARD.encode(&digest(&SHA256, html.as_bytes()).as_ref()[..12]));
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { policy: value(&policy), tag: value(&tag), html: html.into() }
    }
}

/// A source of a policy: the text with this hash.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// The style, without the spaces that mean nothing there.
fn squeezed_style() -> String {
    let spaces = [(": ", ":"), ("; ", ";"), (", ", ","), (" {", "{"), ("{ ", "{"), (" }", "}"), ("}\n", "}")];
    spaces.iter().fold(squeezed(STYLE), |style, (with, without)| style.replace(with, without))
}

/// A script, without the spaces around arrows too: it has hundreds of them.
fn squeezed_script(source: &str) -> String {
    squeezed(source).replace(" => ", "=>")
}

/// A source without indentation, lines that are comments, and ends of lines that mean nothing. What this can do no harm to
/// is all that the sources have: a test sees to it.
fn squeezed(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let lines = source.lines().map(str::trim_start);
    let is_comment = |line: &str| line.starts_with("// ") || (line.starts_with("/* ") && line.ends_with(" */"));
    for line in lines.filter(|line| !line.is_empty() && !is_comment(line)) {
        text.push_str(line);
        if !line.ends_with(['{', '(', '[', ',', ';']) {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in the document between two tags.
    fn between<'a>(html: &'a str, open: &str, close: &str) -> &'a str {
        let start = html.find(open).unwrap() + open.len();
        &html[start..start + html[start..].find(close).unwrap()]
    }

    #[test]
    fn the_page_is_small() {
        let size = PAGE.html.len();
        assert!(size < 60 * 1024, "{size} bytes");
    }

    #[test]
    fn the_policy_lets_exactly_the_pages_own_style_and_script_run() {
        let html = std::str::from_utf8(&PAGE.html).unwrap();
        let policy = PAGE.policy.to_str().unwrap();
        for (kind, open, close) in [("script", "<script>", "</script>"), ("style", "<style>", "</style>")] {
            assert_eq!(html.matches(open).count(), 1, "{kind}");
            assert_eq!(html.matches(close).count(), 1, "{kind}");
            let expected = format!("{kind}-src '{}';", hash(between(html, open, close)));
            assert!(policy.contains(&expected), "{expected} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!html.contains("style=\""), "an attribute that the policy would not let work");
        // What `printf abc | openssl dgst -sha256 -binary | base64` says.
        assert_eq!(hash("abc"), "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }

    #[test]
    fn the_page_needs_nobody_else_and_makes_no_markup_of_text() {
        let html = std::str::from_utf8(&PAGE.html).unwrap();
        // The names of vocabularies are no addresses.
        let rest = html.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", "//cdn", "url(", "@import", "src="] {
            assert!(!rest.contains(outside), "{outside}");
        }
        for sink in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "new Function", "srcdoc"] {
            assert!(!rest.contains(sink), "{sink}");
        }
    }

    #[test]
    fn what_is_squeezed_out_means_nothing() {
        for source in SCRIPTS {
            for line in source.lines() {
                assert_eq!(
                    line.matches('`').count() % 2,
                    0,
                    "a text of several lines would lose its indentation: {line}"
                );
                assert!(!line.trim_start().starts_with("/*"), "{line}");
                let texts = line.split('"').skip(1).step_by(2);
                assert!(texts.into_iter().all(|text| !text.contains(" => ")), "{line}");
            }
        }
        assert_eq!(squeezed("a {\n  b\n\n  // why\n}\n/* why */\n"), "a {b\n}\n");
    }

    #[test]
    fn a_browser_that_has_the_page_is_not_sent_it_again() {
        let asked = |tag: &str| HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap())]);
        let first = answer(&HeaderMap::new());
        assert_eq!((first.status(), first.body().len()), (StatusCode::OK, PAGE.html.len()));
        let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let again = answer(&asked(&known));
            assert_eq!((again.status(), again.body().len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
            assert_eq!(again.headers()[CONTENT_SECURITY_POLICY], first.headers()[CONTENT_SECURITY_POLICY]);
        }
        assert_eq!(answer(&asked("\"x\"")).status(), StatusCode::OK);
    }
}
