//! Whether the daemon can start here.

use serde::{Deserialize, Serialize};

/// `mesh check`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Whether the daemon can start here and intercept connections: nothing that is required is missing.
    pub ok: bool,
    /// What was looked at.
    pub findings: Vec<Finding>,
}

/// One thing that `mesh check` looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub check: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether the daemon needs it.
    pub required: bool,
    /// What was seen.
    pub detail: String,
    /// What to do; null: nothing.
    pub remedy: Option<String>,
}
