//! Bytes to bodies, whatever the framing.

use bytes::Bytes;
use http_body::SizeHint;

use super::{
    super::FaultKind,
    Limits,
    chunked::{Chunked, Step},
    framing::Framing,
};

/// Decodes one body.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks are still to come.
    Chunked(Chunked),
    /// All that is still to come.
    UntilClose,
    /// Nothing is still to come.
    Over,
}

impl From<Framing> for Decoder {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) | Framing::Tunnel => Self::Over,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl Decoder {
    /// Goes on with `input`, of which it takes what it used.
    pub(super) fn step(&mut self, input: &mut Bytes, limits: &Limits) -> Result<Step, FaultKind> {
        let step = match self {
            Self::Over => return Ok(Step::End),
            Self::Chunked(chunked) => chunked.step(input, limits)?,
            _ if input.is_empty() => return Ok(Step::More),
            Self::UntilClose => Step::Data(std::mem::take(input)),
            Self::Length(left) => {
                let here = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= here as u64;
                if *left == 0 {
                    *self = Self::Over;
                }
                Step::Data(input.split_to(here))
            }
        };
        if matches!(step, Step::Trailers(_) | Step::End) {
            *self = Self::Over;
        }
        Ok(step)
    }

    /// The connection ended: whether the body is whole.
    pub(super) fn end(&mut self) -> Result<(), FaultKind> {
        match self {
            Self::Over | Self::UntilClose => {
                *self = Self::Over;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(FaultKind::Closed),
        }
    }

    /// Whether nothing is still to come.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// How many bytes of data are still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Over => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }
}
