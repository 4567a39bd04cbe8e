//! Which lines of the log are wanted.

use super::types::Time;
use std::{fmt, net::SocketAddr, ops::RangeInclusive, str::FromStr, time::Duration};

/// Which lines of the log of requests and connections are asked for; all that is given has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those to this endpoint.
    pub endpoint: Option<SocketAddr>,
    /// Only answers with such a status.
    pub status: Option<Statuses>,
    /// Only requests with such a method.
    pub method: Option<Methods>,
    /// Only requests with such a path.
    pub path: Option<PathPattern>,
    /// Only what took so long.
    pub duration: Option<DurationBound>,
    /// Only those of such a trace.
    pub trace: Option<TraceStart>,
    /// Only what was over, or still going on, at this time or later.
    pub since: Option<Since>,
    /// No more than so many, the newest.
    pub limit: Option<u32>,
}

/// So many lines are told where nobody says how many.
pub const DEFAULT_LIMIT: u32 = 100;

/// What a filter would have to look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct FilterError {
    expected: &'static str,
    found: String,
}

impl FilterError {
    fn new(expected: &'static str, found: &str) -> Self {
        Self { expected, found: found.to_owned() }
    }
}

/// Statuses: `503`, `5xx`, `400-499`, or several of these with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether it is one of them.
    #[must_use]
    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl FromStr for Statuses {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        const EXPECTED: &str =
            "a status such as 503, a class such as 5xx, a range such as 400-499, or several with commas between";
        let status = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|status| digits && (100..=999).contains(status))
        };
        let range = |part: &str| {
            if let Some(class) = part.strip_suffix("xx").or_else(|| part.strip_suffix("XX")) {
                let first = status(&format!("{class}00"))?;
                return Some(first..=first + 99);
            }
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (status(first)?, status(last)?);
            (first <= last).then_some(first..=last)
        };
        let ranges = text.split(',').map(|part| range(part.trim())).collect::<Option<_>>();
        ranges.map(Self).ok_or_else(|| FilterError::new(EXPECTED, text))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(&self.0, f, |range, f| match range.start() == range.end() {
            true => range.start().fmt(f),
            false => write!(f, "{}-{}", range.start(), range.end()),
        })
    }
}

/// Methods: `GET`, or several with commas between. In whatever case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods(Vec<String>);

impl Methods {
    /// Whether it is one of them.
    #[must_use]
    pub fn contain(&self, method: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(method))
    }
}

impl FromStr for Methods {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        // The characters of a token, RFC 9110.
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let methods: Vec<_> = text.split(',').map(|method| method.trim().to_ascii_uppercase()).collect();
        if methods.iter().any(|method| method.is_empty() || !method.bytes().all(inner)) {
            return Err(FilterError::new("a method such as GET, or several with commas between", text));
        }
        Ok(Self(methods))
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(&self.0, f, fmt::Display::fmt)
    }
}

/// Paths: with a `/` in front those that begin like it; without one those that contain it anywhere; with a `*` in it
/// those that are like it as a whole, where `*` stands for anything. The query is part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(String);

impl PathPattern {
    /// Whether a path, with its query, is like it.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self.0.as_str() {
            pattern if pattern.contains('*') => glob(pattern.as_bytes(), path.as_bytes()),
            pattern if pattern.starts_with('/') => path.starts_with(pattern),
            pattern => path.contains(pattern),
        }
    }
}

/// Whether `text` is `pattern` with something in the place of every `*`. It takes no longer than the product of both
/// lengths, whatever they say.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    // Behind the last `*`, and what it stands for ends here.
    let mut star = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, place));
            }
            Some(byte) if *byte == text[place] => {
                at += 1;
                place += 1;
            }
            _ => match star {
                None => return false,
                Some((behind, end)) => {
                    star = Some((behind, end + 1));
                    (at, place) = (behind, end + 1);
                }
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

impl FromStr for PathPattern {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        match text.is_empty() || text.len() > 1024 {
            true => {
                Err(FilterError::new("a path such as /api, a part of one, or a pattern such as /api/*/items", text))
            }
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long something took: `>100ms`, `>=1s`, `<1s`, `<=250us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationBound {
    longer: bool,
    or_equal: bool,
    than: Duration,
}

impl DurationBound {
    /// Whether it took so long.
    #[must_use]
    pub fn holds(&self, duration: Duration) -> bool {
        match (self.longer, self.or_equal) {
            (true, true) => duration >= self.than,
            (true, false) => duration > self.than,
            (false, true) => duration <= self.than,
            (false, false) => duration < self.than,
        }
    }
}

impl FromStr for DurationBound {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let bound = || {
            let (longer, rest) = match text.strip_prefix('>') {
                Some(rest) => (true, rest),
                None => (false, text.strip_prefix('<')?),
            };
            let (or_equal, rest) = rest.strip_prefix('=').map_or((false, rest), |rest| (true, rest));
            Some(Self { longer, or_equal, than: humantime::parse_duration(rest.trim()).ok()? })
        };
        bound().ok_or_else(|| FilterError::new("a bound such as '>100ms', '>=1s' or '<1s'", text))
    }
}

impl fmt::Display for DurationBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, equal) = (if self.longer { ">" } else { "<" }, if self.or_equal { "=" } else { "" });
        write!(f, "{sign}{equal}{}", humantime::format_duration(self.than))
    }
}

/// The beginning of a trace's id, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceStart(String);

impl TraceStart {
    /// Whether the id of a trace begins like it.
    #[must_use]
    pub fn matches(&self, id: &str) -> bool {
        id.starts_with(&self.0)
    }
}

impl FromStr for TraceStart {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        match (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(FilterError::new("the id of a trace, up to 32 hexadecimal digits, or its beginning", text)),
        }
    }
}

impl fmt::Display for TraceStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// From when on: so long ago (`5m`), or a time (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long before now, whenever that is.
    Ago(Duration),
    /// From then on.
    At(Time),
}

impl Since {
    /// The time that is meant, by the clock of the day. A clock that was set back makes it later than what was logged before.
    #[must_use]
    pub fn time(self, now: Time) -> Time {
        match self {
            Self::Ago(ago) => now.before(ago),
            Self::At(time) => time,
        }
    }
}

impl FromStr for Since {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if let Ok(time) = text.parse() {
            return Ok(Self::At(time));
        }
        let ago = humantime::parse_duration(text);
        ago.map(Self::Ago)
            .map_err(|_| FilterError::new("how long ago, such as 5m, or a time such as 2026-01-31T12:00:00Z", text))
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ago(ago) => humantime::format_duration(*ago).fmt(f),
            Self::At(time) => time.fmt(f),
        }
    }
}

fn list<T>(
    items: &[T],
    f: &mut fmt::Formatter<'_>,
    each: impl Fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(",")?;
        }
        each(item, f)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statuses_are_numbers_classes_ranges_and_lists() {
        let contained = |text: &str| {
            let statuses: Statuses = text.parse().unwrap();
            [200, 204, 301, 400, 499, 503].into_iter().filter(|status| statuses.contain(*status)).collect::<Vec<_>>()
        };
        assert_eq!(contained("503"), [503]);
        assert_eq!(contained("2xx"), [200, 204]);
        assert_eq!(contained("4XX"), [400, 499]);
        assert_eq!(contained("204-400"), [204, 301, 400]);
        assert_eq!(contained("301, 5xx"), [301, 503]);
        for text in
            ["", "5", "5x", "xxx", "5xxx", "600-500", "99", "1000", "200-", "-200", "200,", "2 00", "+20", "éxx"]
        {
            let error = text.parse::<Statuses>().unwrap_err().to_string();
            assert!(error.starts_with("expected a status such as 503, a class such as 5xx"), "{text}: {error}");
        }
    }

    #[test]
    fn methods_are_words_in_any_case() {
        let methods: Methods = "get,Post".parse().unwrap();
        assert!(methods.contain("GET") && methods.contain("post") && !methods.contain("PUT"));
        for text in ["", "GET,", "GE T", "G\nT", "é"] {
            assert!(text.parse::<Methods>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths_begin_contain_or_are_like_a_pattern() {
        let matches = |pattern: &str, path: &str| pattern.parse::<PathPattern>().unwrap().matches(path);
        assert!(matches("/api", "/api") && matches("/api", "/apiary?x") && !matches("/api", "/v1/api"));
        assert!(matches("api", "/v1/api/x") && matches("x=1", "/?x=1") && !matches("api", "/v1"));
        assert!(matches("/api/*/items", "/api/a/b/items") && !matches("/api/*/items", "/api/items"));
        assert!(matches("*.png", "/a.png") && !matches("*.png", "/a.png?b"));
        assert!(matches("*", "") && matches("**a**", "bab") && !matches("*ab", "aba"));
        assert!("".parse::<PathPattern>().is_err());
    }

    #[test]
    fn a_hostile_pattern_does_not_take_for_ever() {
        let pattern: PathPattern = "*a".repeat(500).parse().unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(4096))));
    }

    #[test]
    fn durations_are_bounds() {
        let holds = |bound: &str, ms: u64| bound.parse::<DurationBound>().unwrap().holds(Duration::from_millis(ms));
        assert!(holds(">100ms", 101) && !holds(">100ms", 100) && holds(">=100ms", 100) && !holds(">= 100ms", 99));
        assert!(holds("<1s", 999) && !holds("<1s", 1000) && holds("<=1s", 1000) && !holds("<=1s", 1001));
        for text in ["", "100ms", "=100ms", ">", ">100", "><1s", ">-1s", "=>1s"] {
            assert!(text.parse::<DurationBound>().is_err(), "{text}");
        }
    }

    #[test]
    fn since_is_so_long_ago_or_a_time() {
        let now: Time = "2026-01-31T12:00:00Z".parse().unwrap();
        let since = |text: &str| text.parse::<Since>().unwrap().time(now).to_string();
        assert_eq!(since("5m"), "2026-01-31T11:55:00.000Z");
        assert_eq!(since("2026-01-31T11:00:00Z"), "2026-01-31T11:00:00.000Z");
        // More than there ever was.
        assert_eq!(since("1000years"), "1970-01-01T00:00:00.000Z");
        for text in ["", "5", "yesterday", "2026-01-31", "-5m"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_trace_is_known_by_its_beginning() {
        let trace: TraceStart = "0AF7".parse().unwrap();
        assert!(trace.matches("0af7651916cd43dd8448eb211c80319c") && !trace.matches("1af7"));
        for text in ["", "xyz", &"0".repeat(33)] {
            assert!(text.parse::<TraceStart>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_is_like_what_was_put_in_the_place_of_its_stars(parts in prop::collection::vec("[ab/]{0,3}", 1..5), fill in "[ab/]{0,4}") {
            let pattern: PathPattern = format!("*{}", parts.join("*")).parse().unwrap();
            let text = format!("{fill}{}", parts.join(&fill));
            prop_assert!(pattern.matches(&text), "{} {}", pattern, text);
        }

        #[test]
        fn what_was_written_is_read_as_it_was_meant(status in "[1-9]xx(,[1-9][0-9]{2})?", ms in 0..100_000u64, longer: bool, equal: bool) {
            let statuses: Statuses = status.parse().unwrap();
            prop_assert_eq!(statuses.to_string().parse::<Statuses>().unwrap(), statuses);
            let bound = DurationBound { longer, or_equal: equal, than: Duration::from_millis(ms) };
            prop_assert_eq!(bound.to_string().parse::<DurationBound>().unwrap(), bound);
            let since = Since::Ago(Duration::from_millis(ms));
            prop_assert_eq!(since.to_string().parse::<Since>().unwrap(), since);
        }
    }
}
