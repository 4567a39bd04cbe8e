//! What endpoints say before their answer (1xx, RFC 9110, section 15.2), on its way to the client.
//!
//! It is said in the middle of a poll of what serves the request, and heard by whoever polls: a channel between the two
//! would cost every request something, and hardly any needs it.

use super::{hop, message::ResponseHead};
use http::{StatusCode, header::CONTENT_LENGTH};
use std::cell::{Cell, RefCell};

/// How many an endpoint may send before an answer, 100 included.
pub(super) const MOST: u8 = 16;

thread_local! {
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<Vec<ResponseHead>> = const { RefCell::new(Vec::new()) };
}

/// An endpoint says this before its answer. `100 (Continue)` is between each two neighbours and not passed on, and with
/// 101 nobody would know any more what is spoken.
pub(super) fn say(mut head: ResponseHead) {
    if matches!(head.status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) || !LISTENING.get() {
        return;
    }
    hop::strip(&mut head.headers);
    hop::say_via(&mut head.headers, head.version);
    head.headers.remove(CONTENT_LENGTH);
    SAID.with_borrow_mut(|said| said.push(head));
}

/// One poll of what serves a request. What is [said](say) meanwhile `hears` gets.
pub(super) fn hearing<T>(poll: impl FnOnce() -> T, hears: impl FnMut(ResponseHead)) -> T {
    LISTENING.set(true);
    let polled = poll();
    LISTENING.set(false);
    if SAID.with_borrow(|said| !said.is_empty()) {
        SAID.take().into_iter().for_each(hears);
    }
    polled
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    fn head(status: u16) -> ResponseHead {
        let response = Response::builder().status(status).header("link", "</a>").header("connection", "x-hop");
        response.header("x-hop", "1").body(()).unwrap().into_parts().0.into()
    }

    #[test]
    fn who_polls_hears_what_is_said_meanwhile_and_nothing_else() {
        say(head(103));
        let mut heard = Vec::new();
        let polled = hearing(
            || {
                [100, 102, 101, 103].map(head).into_iter().for_each(say);
                7
            },
            |head| heard.push(head),
        );
        assert_eq!((polled, heard.iter().map(|h| h.status.as_u16()).collect::<Vec<_>>()), (7, vec![102, 103]));
        assert_eq!(heard[0].headers.get("via"), Some(&b"1.1 mesh"[..]));
        assert!(heard[0].headers.get("link").is_some() && heard[0].headers.get("x-hop").is_none());
        hearing(|| (), |head| panic!("{head:?}"));
    }
}
