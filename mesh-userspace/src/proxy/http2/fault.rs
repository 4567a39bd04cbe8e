//! What an error of `h2` means here, and which code a fault becomes on its way out.

use h2::Reason;

use super::{
    super::{Fault, FaultKind, Side},
    cork::Progress,
};

/// What `error` means on a connection of `side` that came as far as `progress`.
pub(super) fn translate(side: Side, error: &h2::Error, progress: &Progress) -> Fault {
    match kind(error, progress) {
        Some(kind) => Fault { side, kind },
        // h2 refuses to send this: no fault of whom it was for.
        None => Fault::downstream(FaultKind::Malformed("cannot be said in HTTP/2")),
    }
}

fn kind(error: &h2::Error, progress: &Progress) -> Option<FaultKind> {
    if let Some(io) = error.get_io() {
        // What h2 reports for streams of a connection that is gone is always a broken pipe; the connection knows better.
        return Some(match progress.failed() {
            _ if progress.ended() => FaultKind::Closed,
            Some(kind) => kind.into(),
            None => io.kind().into(),
        });
    }
    Some(match error.reason()? {
        // Found by h2 in what the peer sent.
        Reason::ENHANCE_YOUR_CALM if error.is_library() => FaultKind::TooLarge("HTTP/2 frames without use"),
        _ if error.is_library() => FaultKind::Malformed("HTTP/2"),
        Reason::NO_ERROR if error.is_go_away() => FaultKind::Closed,
        reason => FaultKind::Reset { code: Some(reason.into()) },
    })
}

/// The code of the reset that tells a peer of `fault`, found on another side, where part of the message is on its way.
///
/// A reset keeps its code, except two that would now be lies: `NO_ERROR` (it is cut off) and `REFUSED_STREAM` (it has been
/// begun with, and a client would send it again).
pub(super) fn code(fault: Fault, otherwise: Reason) -> Reason {
    match fault.kind {
        FaultKind::Reset { code: Some(code) } => match Reason::from(code) {
            Reason::NO_ERROR | Reason::REFUSED_STREAM => otherwise,
            reason => reason,
        },
        _ => otherwise,
    }
}

/// The code of the reset in place of an answer. It keeps the code of the handler, `REFUSED_STREAM` included, as nothing was
/// sent.
pub(super) fn code_of_refusal(fault: Fault) -> Reason {
    match fault.kind {
        FaultKind::Reset { code: Some(code) } if code != u32::from(Reason::NO_ERROR) => code.into(),
        FaultKind::Malformed(_) | FaultKind::TooLarge(_) if fault.side == Side::Downstream => Reason::PROTOCOL_ERROR,
        _ => Reason::INTERNAL_ERROR,
    }
}
