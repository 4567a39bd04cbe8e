//! Where traces are sent to.

use super::text::{Complaint, text_value};
use crate::telemetry::traces::Collector;
use std::fmt;

/// A collector of traces; none: they are sent nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaybeCollector(pub Option<Collector>);

impl MaybeCollector {
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        match Collector::parse(text) {
            Ok(collector) => Ok(Self(Some(collector))),
            Err(no) => {
                let complaint = Complaint::new(no.expected);
                Err(match no.remedy {
                    Some(remedy) => complaint.remedy(remedy),
                    None => complaint,
                })
            }
        }
    }
}

impl fmt::Display for MaybeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |collector| collector.fmt(f))
    }
}

text_value!(MaybeCollector, "http://HOST:4318 or grpc://HOST:4317, or with TLS https:// or grpcs://, or \"\"", {
    "pattern": "^((https?://[^/@?#]+(/[^?#]*)?)|(grpcs?://[^/@?#]+/?))?$",
    "examples": ["http://127.0.0.1:4318", "grpc://127.0.0.1:4317"]
});
