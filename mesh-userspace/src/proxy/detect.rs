//! What does a connection speak that begins with these bytes?

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2, with its preface.
    Http2,
    /// Something else.
    Other,
    /// More bytes will tell.
    Unsure,
}

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No method that anybody uses is longer (`UPDATEREDIRECTREF`, 17).
const LONGEST_METHOD: usize = 24;
/// A request line that is longer is one for sure, or something that nobody would have to understand.
const LONGEST_LINE: usize = 8192;

/// Methods of HTTP itself. After another word more of the line has to be seen: mail and cache protocols begin alike.
const METHODS: [&[u8]; 9] = [b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"];

/// What a connection speaks that begins with `bytes`.
pub(super) fn spoken(bytes: &[u8]) -> Spoken {
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        return if common == PREFACE.len() { Spoken::Http2 } else { Spoken::Unsure };
    }
    // A server ignores an empty line before a request line (RFC 9112, section 2.2).
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    if bytes == b"\r" {
        return Spoken::Unsure;
    }
    let end = line.iter().position(|b| !b.is_ascii_uppercase() && *b != b'-' && *b != b'_').unwrap_or(line.len());
    let method = &line[..end];
    match line.get(end) {
        None if end <= LONGEST_METHOD => Spoken::Unsure,
        Some(b' ') if METHODS.contains(&method) => Spoken::Http1,
        Some(b' ') if !method.is_empty() && end <= LONGEST_METHOD => match memchr::memchr(b'\n', line) {
            Some(newline) => {
                let line = line[..newline].strip_suffix(b"\r").unwrap_or(&line[..newline]);
                if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") { Spoken::Http1 } else { Spoken::Other }
            }
            None if line.len() < LONGEST_LINE => Spoken::Unsure,
            None => Spoken::Other,
        },
        _ => Spoken::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        for (bytes, expected) in [
            (&b""[..], Spoken::Unsure),
            (b"G", Spoken::Unsure),
            (b"GET ", Spoken::Http1),
            (b"\r", Spoken::Unsure),
            (b"\r\nGET / ", Spoken::Http1),
            (b"get / HTTP/1.1\r\n", Spoken::Other),
            (b"PRI", Spoken::Unsure),
            (PREFACE, Spoken::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Spoken::Http2),
            (b"PRI * HTTP/1.1\r\n", Spoken::Http1),
            (b"\x16\x03\x01", Spoken::Other),
            (b"EHLO mail.example", Spoken::Unsure),
            (b"EHLO mail.example\r\n", Spoken::Other),
            (b"PING\r\n", Spoken::Other),
            (b"*1\r\n$4\r\nPING\r\n", Spoken::Other),
            (b"SSH-2.0-OpenSSH_9\r\n", Spoken::Other),
            (b"PROPFIND /x HTTP/1.1\r\n", Spoken::Http1),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Spoken::Other),
        ] {
            assert_eq!(spoken(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn more_bytes_never_take_an_answer_back() {
        for whole in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], PREFACE, b"EHLO x\r\n", b"PROPFIND /x HTTP/1.1\r\n"] {
            let answers: Vec<Spoken> = (0..=whole.len()).map(|n| spoken(&whole[..n])).collect();
            let sure = answers.iter().position(|a| *a != Spoken::Unsure).unwrap();
            assert!(answers[sure..].iter().all(|a| *a == answers[sure]), "{}", whole.escape_ascii());
        }
    }
}
